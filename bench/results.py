"""What a part of the benchmarks found, as it is kept in bench/results/."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import ROOT, machine
from bench.errors import BenchError
from bench.figures import Medians, Ratio, Rounds, medians, ratios

COMMITTED = ROOT / "bench" / "results"


@dataclass(frozen=True, kw_only=True)
class Results:
    """Of one part, measured in one run."""

    part: str
    command: str  # repeats it
    measured: str  # ISO 8601, UTC, when it began
    seconds: float  # it took
    machine: dict[str, Any]
    rounds: Rounds
    medians: Medians
    ratios: dict[str, float]
    facts: dict[str, Any] = field(default_factory=dict)  # what is not measured in rounds: sizes, accuracies
    missing: dict[str, str] = field(default_factory=dict)  # what was not measured, and why

    def write(self, directory: Path) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.part}.json"
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return path


class Recorder:
    """Collects a part's figures; knows when it began, and on what."""

    def __init__(self, part: str, command: str) -> None:
        self.part, self.command = part, command
        self.rounds: Rounds = {}
        self.facts: dict[str, Any] = {}
        self.missing: dict[str, str] = {}
        self._machine, self._began, self._stolen = machine.describe(), datetime.now(UTC), machine.stolen()

    def results(self, wanted: Sequence[Ratio] = ()) -> Results:
        seconds = (datetime.now(UTC) - self._began).total_seconds()
        stolen = (machine.stolen() - self._stolen) / seconds / int(str(self._machine["cores"]))
        return Results(
            part=self.part,
            command=self.command,
            measured=self._began.isoformat(timespec="seconds"),
            seconds=round(seconds),
            machine={**self._machine, "stolen_by_others": round(stolen, 4)},
            rounds=self.rounds,
            medians=medians(self.rounds),
            ratios=ratios(self.rounds, wanted),
            facts=self.facts,
            missing=self.missing,
        )


def read(part: str, directory: Path = COMMITTED) -> Results:
    """
    Raises:
        BenchError: the part was not measured.
    """
    path = directory / f"{part}.json"
    try:
        return Results(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise BenchError(f"{path} is missing: run `python -m bench {part}`") from None


def measured(directory: Path = COMMITTED) -> dict[str, Results]:
    return {path.stem: read(path.stem, directory) for path in sorted(directory.glob("*.json"))}
