"""The commands that repeat what a report tells of, out of what the stages' logs say they were told."""

import contextlib
import json
import shlex
from collections.abc import Mapping
from typing import Any

from mnist.cli import stage_log
from mnist.storage import Storage

STORAGE = "storage/again"  # not the run's own: that one is to stay as it is
SCRIPTS = {
    "prepare-data": "prepare.py",
    "train": "train.py",
    "export": "export.py",
    "client": "client.py",
    "report": "report.py",
}
SERVER = "serving/launch.py"
ELSEWHERE = {"storage", "endpoint", "deadline"}  # what depends on where it ran


Command = list[str]  # its words, quoted for a shell


def commands(storage: Storage, model_name: str, threads: int | None) -> list[Command]:
    """A command a stage, in order; stages whose logs say nothing are left out.

    Args:
        threads: How many the training ran on; others give slightly other weights.
    """
    lines = []
    for stage, script in SCRIPTS.items():
        if stage == "client":
            lines.append([*_command(SERVER, {"model_name": model_name, "triton": ".tools/triton"}), "&"])
        if stage == "report":
            lines.append(_command(script, {"model_name": model_name}))
        elif (told := _told(storage, stage)) is not None:
            fixed = {"threads": str(threads)} if stage == "train" and threads else {}
            lines.append(_command(script, {**told, **fixed}))
    return lines


def _command(script: str, told: Mapping[str, str]) -> Command:
    options = {"storage": STORAGE, **{name: value for name, value in told.items() if name not in ELSEWHERE}}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value not in ("", "None")]
    return [shlex.quote(word) for word in ("python", f"workloads/{script}", *words)]


def _told(storage: Storage, stage: str) -> dict[str, str] | None:
    """The options of the stage's last run that ended well (for the client: of the last one)."""
    try:
        lines = stage_log(storage, stage).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    finished = stage == "client"  # a missed gate is an end, too
    for line in reversed(lines):
        with contextlib.suppress(ValueError):  # a line cut off by a crash
            entry: Any = json.loads(line)
            event = entry.get("event") if isinstance(entry, dict) else None
            finished |= event == "finished"
            if finished and event == "started" and isinstance(entry.get("arguments"), dict):
                return {str(name): str(value) for name, value in entry["arguments"].items()}
    return None
