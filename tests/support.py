"""What the tests share: running a stage, what a refusal looks like, small disks, free ports."""

import contextlib
import io
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]
WORKLOADS = ROOT / "workloads"
TRITON = ROOT / ".tools" / "triton"


@dataclass(frozen=True)
class Outcome:
    """How a stage ended and what it printed."""

    code: int
    out: str
    err: str


def run_main(main: Callable[[list[str]], int], *arguments: object) -> Outcome:
    """Run a stage's main in this process: starting one for each takes seconds."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Outcome(code, out.getvalue(), err.getvalue())


def run_script(script: str, *arguments: object, timeout: float = 120) -> Outcome:
    """Run a script of workloads/ as a process, as a container would."""
    command = [sys.executable, str(WORKLOADS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def succeeded(outcome: Outcome) -> str:
    """Assert that the stage succeeded; returns what it printed."""
    assert outcome.code == 0, f"the stage must succeed, it said: {outcome.out}{outcome.err}"
    return outcome.out


def refusal(outcome: Outcome, code: int = 1) -> str:
    """Assert that the stage failed as users are promised, with one line; returns that line's message."""
    assert outcome.code == code, f"exit status {code} says that it failed: {outcome}"
    errors = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, f"exactly one line says why: {outcome.err!r}"
    assert "Traceback" not in outcome.out + outcome.err, f"no traceback buries the reason: {outcome.err}"
    return errors[0].removeprefix("error: ")


@contextlib.contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    """A file system of its own, so that a test can fill it or make it read-only; skips where mounting is denied."""
    directory.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount a tmpfs (root): a full or read-only disk cannot be made here")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, all different; none that the system hands out to clients by itself."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as one:
            one.bind(("127.0.0.1", port))
            found = [*dict.fromkeys([*found, port])]
    return found


def gone(processes: list[psutil.Process], patience: float = 15.0) -> list[int]:
    """Wait for the processes to end; the ids of those that live on."""
    deadline = time.monotonic() + patience
    while (alive := [process for process in processes if _is_alive(process)]) and time.monotonic() < deadline:
        psutil.wait_procs(alive, timeout=0.05)
    return [process.pid for process in alive]


def _is_alive(process: psutil.Process) -> bool:
    """Orphans that ended count as ended, also before the machine's init has collected them."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
