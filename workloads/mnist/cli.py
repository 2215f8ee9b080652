"""The edge every stage runs behind: arguments, the stage's log, signals, and errors as one line."""

import argparse
import contextlib
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from mnist import __version__
from mnist.errors import InterruptedStageError, PipelineError
from mnist.lock import exclusive
from mnist.storage import Storage, explained, make_directory

DEFAULT_STORAGE = Path("/storage")
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class StageLog:
    """One line a message on standard output for people, one JSON object a line in logs/<stage>.log for programs.

    Every object has `time` (ISO 8601, UTC), `stage` and `event`. What writes raises a `StorageError` where it cannot.
    """

    def __init__(self, stage: str, storage: Storage, keep: bool = True, tell: bool = True) -> None:
        self.stage = stage
        self.path = stage_log(storage, stage)
        self.keep, self.tell = keep, tell
        self._started = time.monotonic()

    def say(self, message: str, event: str = "message", **fields: Any) -> None:
        """Print the message, and record it with the fields."""
        if self.tell:
            print(message, flush=True)
        self.record(event, message=message, **fields)

    def warn(self, message: str, **fields: Any) -> None:
        self.say(f"warning: {message}", event="warning", **fields)

    def record(self, event: str, **fields: Any) -> None:
        """Append an event to the log alone."""
        if not self.keep:
            return
        entry = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "stage": self.stage, "event": event}
        with explained(self.path):
            make_directory(self.path.parent)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**entry, **fields}) + "\n")

    def finished(self, summary: Mapping[str, Any]) -> None:
        """Record the stage's success: its summary and its seconds."""
        self.record("finished", seconds=round(time.monotonic() - self._started, 3), **summary)


class _Parser(argparse.ArgumentParser):
    """Tells what is wrong with the command line as every other error is told."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"error: {self.prog}: {message}; --help lists the options\n")


def number(kind: type[int] | type[float], least: float, most: float = math.inf) -> Callable[[str], float]:
    """An option's type: a number within these bounds."""

    def convert(text: str) -> float:
        with contextlib.suppress(ValueError):
            if least <= (value := kind(text)) <= most:
                return value
        bounds = f"from {least:g} to {most:g}" if most < math.inf else f"of at least {least:g}"
        raise argparse.ArgumentTypeError(f"{text!r} is not a {'whole ' if kind is int else ''}number {bounds}")

    return convert


def parser(stage: str, description: str) -> argparse.ArgumentParser:
    """The options all stages have; a stage adds its own."""
    options = _Parser(prog=stage, description=description, allow_abbrev=False)
    options.add_argument("--storage", type=Path, default=DEFAULT_STORAGE, help="storage directory (%(default)s)")
    options.add_argument("--version", action="version", version=__version__)
    return options


def run(
    stage: str,
    options: argparse.ArgumentParser,
    argv: list[str] | None,
    body: Callable[[argparse.Namespace, Storage, StageLog], Mapping[str, Any]],
    *,
    writes: bool = True,
    leads: bool = True,
) -> int:
    """Run a stage's body; its returned summary ends the stage's log.

    Args:
        writes: False for a stage whose storage is mounted read-only: it keeps no log and does not lock the storage.
        leads: False for a process that works for another one: that writes and tells for both.

    Returns:
        The exit status: 0, 1 for an error a user can mend (printed as one line), 130 when asked to stop; 2 for options.
    """
    arguments = options.parse_args(argv)
    storage = Storage(Path(os.path.realpath(arguments.storage)))  # a circle of links is left for the disk to refuse
    writes = writes and leads
    log = StageLog(stage, storage, keep=writes, tell=leads)
    try:
        with _signals_raise(), exclusive(storage.root, stage) if writes else contextlib.nullcontext():
            log.record("started", arguments={key: str(value) for key, value in vars(arguments).items()})
            log.finished(body(arguments, storage, log))
    except (InterruptedStageError, KeyboardInterrupt) as error:
        _report(log, "interrupted", str(error) or "stopped before the end")
        return EXIT_INTERRUPTED
    except PipelineError as error:
        _report(log, "failed", str(error))
        return EXIT_FAILED
    return 0


def stage_log(storage: Storage, stage: str) -> Path:
    return storage.logs / f"{stage}.log"


def last_finished(storage: Storage, stage: str) -> dict[str, Any] | None:
    """What the stage's last successful run said at its end; None when it never ended well."""
    try:
        lines = stage_log(storage, stage).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        with contextlib.suppress(ValueError):  # a line cut off by a crash
            entry = json.loads(line)
            if isinstance(entry, dict) and entry.get("event") == "finished":
                return entry
    return None


@contextlib.contextmanager
def stop_request() -> Iterator[threading.Event]:
    """Collect SIGINT and SIGTERM in an event instead of raising, for work that must end at a safe point."""
    requested = threading.Event()

    def remember(_signal: int, _frame: FrameType | None) -> None:
        requested.set()

    with _handling(remember):
        yield requested


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise InterruptedStageError(f"stopped by {signal.Signals(number).name}; run again to go on")

    with _handling(interrupt):
        yield


@contextlib.contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def _report(log: StageLog, event: str, message: str) -> None:
    line = " ".join(message.split())
    print(f"error: {line}", file=sys.stderr, flush=True)
    with contextlib.suppress(PipelineError):  # the storage itself may be what failed
        log.record(event, error=line)
