"""Run a job under its guard, passing on live what it prints."""

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from process import records
from process.errors import CancelledError, ProcessError

Say = Callable[[str], None]

GUARD = Path(__file__).with_name("guard.py")
ERROR_PREFIX = "error: "
POLL_SECONDS = 0.2
STOP_SECONDS = 30.0  # the guard kills after 20


def run_job(inputs: Mapping[str, Any], say: Say, cancelled: threading.Event, timeout: float) -> dict[str, Any]:
    """Run the job, or take over the result of an identical run that an interrupted `up` did not get to record.

    Returns:
        The resource's outputs.

    Raises:
        ProcessError: it failed (with the error line it printed), or did not end in time.
        CancelledError: the user interrupted.
    """
    name, directory = inputs["name"], inputs["directory"]
    done = records.read(directory, name)
    if not is_done(inputs, done):
        records.remove(directory, name)
        started = time.monotonic()
        run_command(name, inputs["command"], say, cancelled, timeout)
        done = {**_key(inputs), "run": uuid.uuid4().hex, "seconds": round(time.monotonic() - started, 2)}
        records.write(directory, name, done)
    assert done is not None
    return {**inputs, "run": done["run"], "seconds": done["seconds"]}


def is_done(inputs: Mapping[str, Any], record: Mapping[str, Any] | None) -> bool:
    """Whether the record says that exactly this has run, and what it made is still there."""
    if not all(Path(path).exists() for path in inputs.get("produces", [])):
        return False
    return record is not None and all(record.get(key) == value for key, value in _key(inputs).items())


def _key(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {"fingerprint": inputs["fingerprint"], "after": list(inputs["after"])}


def run_command(name: str, command: Sequence[str], say: Say, cancelled: threading.Event, timeout: float) -> None:
    """Run a command under its guard to its end, and `say` each line it prints.

    Args:
        timeout: Seconds after which it is stopped.

    Raises:
        ProcessError: it failed (with its last `error:` line, else the signal or status), or took too long.
        CancelledError: `cancelled` was set.
    """
    guard = subprocess.Popen(
        [sys.executable, "-S", str(GUARD), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": ""},
    )
    assert guard.stdin is not None and guard.stdout is not None
    # Whatever happens here: the guard's input is closed, which stops its command, then there is no more output.
    with contextlib.closing(guard.stdout), contextlib.closing(guard.stdin):
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_read_lines, args=(guard.stdout, lines), daemon=True).start()
        last_lines: deque[str] = deque(maxlen=20)
        deadline = time.monotonic() + timeout
        reason: ProcessError | None = None
        while (line := _next_line(lines)) is not None:
            if line:
                last_lines.append(line)
                say(line)
            if reason is None and (cancelled.is_set() or time.monotonic() > deadline):
                reason = _stop_reason(name, cancelled, timeout)
                guard.stdin.close()  # the guard takes this as the word to stop its command
        status = guard.wait(STOP_SECONDS)
    if reason is not None:
        raise reason
    if status != 0:
        raise ProcessError(f"{name}: {_explain(last_lines, status)}")


def _read_lines(stream: IO[str], lines: "queue.Queue[str | None]") -> None:
    for line in stream:
        lines.put(line.rstrip())
    lines.put(None)


def _next_line(lines: "queue.Queue[str | None]") -> str | None:
    """The next line, "" when there is none at the moment, None at the end."""
    try:
        return lines.get(timeout=POLL_SECONDS)
    except queue.Empty:
        return ""


def _stop_reason(name: str, cancelled: threading.Event, timeout: float) -> ProcessError:
    if cancelled.is_set():
        return CancelledError(f"{name}: interrupted; the next `up` goes on from here")
    return ProcessError(f"{name}: stopped after {timeout:.0f} s; raise mnist:stageTimeoutMinutes if that is too short")


def _explain(last_lines: Sequence[str], status: int) -> str:
    errors = [line for line in last_lines if line.startswith(ERROR_PREFIX)]
    if errors:
        return errors[-1].removeprefix(ERROR_PREFIX)
    killed = f"killed by signal {status - 128}" if status > 128 else f"exit status {status}"
    said = f": {last_lines[-1]}" if last_lines else ""
    hint = " (out of memory?)" if status == 137 else ""
    return f"{killed}{hint}{said}"
