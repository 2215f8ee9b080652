"""The versions of the model, with what the runs in results/ found of each."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mnist.repository import ModelRepository
from mnist.storage import LATEST, RESULTS_FILE, Storage

RUNS = 300  # the newest ones; more would make the report slow


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version: as published where it still is, and as its last check found it."""

    version: int
    exported: str  # ISO 8601, UTC
    accuracy: float  # 0..1, on the test data of then
    precision: str
    dataset: str
    source: str  # the checkpoint
    checks: int  # runs of the client
    p50: float | None  # of single images, ms, in the last check; None without one
    p99: float | None
    state: str  # served, rolled back, removed, or ""


def versions(storage: Storage, repository: ModelRepository, served: int) -> list[Version]:
    """Published versions, and those removed since that a run in results/ remembers; newest first.

    Raises:
        ModelError: the metadata of a published version are damaged.
    """
    published = {version: repository.metadata(version) for version in repository.versions()}
    models: dict[int, Mapping[str, Any]] = {version: vars(metadata) for version, metadata in published.items()}
    checks: dict[int, list[Mapping[str, Any]]] = {}
    for version, model, load in _runs(storage, repository.name):
        if models.setdefault(version, model)["sha256"] == model["sha256"]:  # not of an earlier model of that number
            checks.setdefault(version, []).append(load)
    states = dict.fromkeys(models.keys() - published.keys(), "removed")
    states |= dict.fromkeys(repository.rejected(), "rolled back") | {served: "served"}
    return [
        _version(version, models[version], checks.get(version, []), states.get(version, ""))
        for version in sorted(models, reverse=True)
    ]


def _version(version: int, model: Mapping[str, Any], checks: list[Mapping[str, Any]], state: str) -> Version:
    newest = checks[0] if checks else {"p50_ms": None, "p99_ms": None}
    return Version(
        version=version,
        exported=model["export_date"],
        accuracy=model["accuracy"],
        precision=model["precision"],
        dataset=model["dataset"],
        source=model["source_model"],
        checks=len(checks),
        p50=newest["p50_ms"],
        p99=newest["p99_ms"],
        state=state,
    )


def _runs(storage: Storage, name: str) -> Iterator[tuple[int, Mapping[str, Any], Mapping[str, Any]]]:
    """Version, model and latencies of the runs that checked this model, newest first."""
    paths = [path for path in storage.results.glob(f"*/{RESULTS_FILE}") if path.parent.name != LATEST]
    for path in sorted(paths, reverse=True)[:RUNS]:
        try:
            results = json.loads(path.read_text(encoding="utf-8"))
            model, load = results["model"], results["load"]["single"]
            needed = (model["sha256"], model["export_date"], model["source_model"], model["precision"])
            figures = (model["accuracy"], load["p50_ms"], load["p99_ms"])
            complete = all(isinstance(text, str) for text in (*needed, model["dataset"]))
            if complete and all(isinstance(figure, float) for figure in figures) and results["model_name"] == name:
                yield int(results["served_version"]), model, load
        except (OSError, ValueError, KeyError, TypeError):
            continue  # results of another kind
