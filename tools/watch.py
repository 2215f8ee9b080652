"""Run `pulumi up` behind the view of tools/progress.py: follow the engine's events and the logs of Kubernetes Jobs."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from progress import Board, Message, diagnostics, table

POLL_SECONDS = 0.2
FOLLOW_AGAIN_SECONDS = 2.0
LAST_LINES_SECONDS = 3.0  # a Job's end may be told before its log's last lines
STYLES = {"warning": "yellow", "error": "red"}

Start = Callable[..., "subprocess.Popen[bytes]"]


def is_wanted() -> bool:
    """Whether to draw: on a terminal that can, and not where CI only lends one."""
    console = Console()
    drawable = console.is_terminal and not console.is_dumb_terminal and not console.options.ascii_only
    return sys.stdout.isatty() and drawable and not os.environ.get("CI")


def watch(start: Start) -> int:
    """Run Pulumi to its end and show what it does; its errors are printed in full, in its own words.

    Args:
        start: Starts it with further arguments, and with `subprocess.Popen`'s keywords.

    Returns:
        Its exit status.
    """
    console, board = Console(highlight=False), Board()
    with tempfile.TemporaryDirectory(prefix="mnist-triton-") as directory, _interrupts_noted(board):
        events, output, errors = (Path(directory, name) for name in ("events", "output", "errors"))
        with output.open("wb") as stdout, errors.open("wb") as stderr:
            process = start(f"--event-log={events}", "--non-interactive", "--color=never", stdout=stdout, stderr=stderr)
        _show(process, board, Lines(events), console)
        if board.errors:
            console.print(Text(f"\n{diagnostics(board.errors)}", STYLES["error"]), soft_wrap=True)
        said = _text(errors) or ("" if process.returncode == 0 or board.errors else _text(output))
        if said:
            console.print(Text(f"\n{said}"), soft_wrap=True)
    return process.returncode


def _show(process: "subprocess.Popen[bytes]", board: Board, events: "Lines", console: Console) -> None:
    with contextlib.closing(JobLogs(board)) as logs, Live(console=console, auto_refresh=False) as live:
        ended = False
        while not ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
                ended = True  # what it wrote until then is still to be read
            for line in events.new():
                with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):  # a kind not known here
                    board.take(json.loads(line))
            logs.follow()
            if ended:
                logs.close()
                board.close()
            for message in board.messages:
                console.print(_printed(message), soft_wrap=message.about is not None)
            board.messages.clear()
            nothing_to_show = ended and process.returncode != 0 and not board.began
            live.update("" if nothing_to_show else table(board), refresh=True)


def _printed(message: Message) -> Text:
    name = f"{message.about[0]}: " if message.about else ""
    return Text(f"{name}{message.text}", STYLES.get(message.severity, ""))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").rstrip()


@contextlib.contextmanager
def _interrupts_noted(board: Board) -> Iterator[None]:
    """Ctrl-C is for Pulumi, which gets it too and needs a moment to end its stages; here it only shows."""

    def note(_signal: int, _frame: FrameType | None) -> None:
        board.stopping = True

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


class Lines:
    """The lines of a file that another process goes on writing."""

    def __init__(self, path: Path) -> None:
        self._path, self._position = path, 0

    def new(self) -> list[str]:
        """Those that were finished since the last call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._position)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._position += len(whole)
        return whole.decode(errors="replace").splitlines()


class JobLogs:
    """Shows the logs of the Kubernetes Jobs that the board waits for, by kubectl; without kubectl there are none."""

    def __init__(self, board: Board, kubectl: str = "kubectl") -> None:
        self._board, self._kubectl = board, kubectl
        self._directory = tempfile.TemporaryDirectory(prefix="mnist-triton-")
        self._followed: dict[str, subprocess.Popen[bytes]] = {}
        self._lines: dict[str, Lines] = {}
        self._next_try: dict[str, float] = {}
        self._patience: dict[str, float] = {}
        self._kept: set[tuple[str, str]] = set()

    def follow(self) -> None:
        """Say what came since the last call; begin with new Jobs, and anew where a pod came after another."""
        for row, (namespace, name) in self._board.jobs.items():
            running = row in self._followed and self._followed[row].poll() is None
            self._say(row)
            if not running and time.monotonic() >= self._next_try.get(row, 0):
                self._start(row, namespace, name)
        for row in set(self._followed) - set(self._board.jobs):
            until = self._patience.setdefault(row, time.monotonic() + LAST_LINES_SECONDS)
            ended = self._followed[row].poll() is not None
            self._say(row)
            if ended or time.monotonic() > until:
                _end(self._followed.pop(row))

    def close(self) -> None:
        """Say the last lines of what is still followed, and end it."""
        for row, process in self._followed.items():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LAST_LINES_SECONDS)
            self._say(row)
            _end(process)
        self._followed.clear()
        self._directory.cleanup()

    def _start(self, row: str, namespace: str, name: str) -> None:
        self._next_try[row] = time.monotonic() + FOLLOW_AGAIN_SECONDS
        context = self._board.config.get("kubernetes:context", "")
        command = [self._kubectl, f"--context={context}", f"--namespace={namespace}", "logs", "--follow", f"job/{name}"]
        path = Path(self._directory.name, row)
        with contextlib.suppress(FileNotFoundError), path.open("wb") as output:
            self._followed[row] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,  # that no pod runs yet, mostly
                start_new_session=True,  # Ctrl-C is not for it
            )
            self._lines[row] = Lines(path)

    def _say(self, row: str) -> None:
        """Warnings and errors stay; a pod that is tried again says them again."""
        for line in self._lines[row].new() if row in self._lines else ():
            prefix, _, text = line.partition(": ")
            self._board.log(row, text if prefix in STYLES else line)
            if prefix in STYLES and (row, line) not in self._kept:
                self._kept.add((row, line))
                kept = self._board.errors if prefix == "error" else self._board.messages
                kept.append(Message(line, (row, "log"), prefix))


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    process.wait()
