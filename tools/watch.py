"""Run `pulumi up` behind the view of tools/progress.py: follow the engine's events and, on Kubernetes, the Jobs' logs."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from progress import Board, Message, diagnostics, table

POLL_SECONDS = 0.2
FOLLOW_AGAIN_SECONDS = 2.0
STYLES = {"warning": "yellow"}
WARNING_PREFIX, ERROR_PREFIX = "warning: ", "error: "

# Starts Pulumi with these arguments added, in this environment, with these streams.
Start = Callable[..., "subprocess.Popen[bytes]"]


def is_wanted() -> bool:
    """Whether to draw: on a terminal that can, and not where CI only lends one."""
    console = Console()
    drawable = console.is_terminal and not console.is_dumb_terminal and not console.options.ascii_only
    return sys.stdout.isatty() and drawable and not os.environ.get("CI")


def watch(start: Start) -> int:
    """Run Pulumi to its end and show what it does.

    Returns:
        Its exit status. What it says on standard error, and its errors, are printed in full.
    """
    console, board = Console(highlight=False), Board()
    with tempfile.TemporaryDirectory(prefix="mnist-triton-") as directory, _interrupts_noted(board):
        files = {name: Path(directory, name) for name in ("events", "output", "errors")}
        with files["output"].open("wb") as output, files["errors"].open("wb") as errors:
            process = start(
                f"--event-log={files['events']}",
                "--non-interactive",
                environment={"PULUMI_DEBUG_COMMANDS": "1"},  # without it the CLI does not know --event-log
                stdout=output,
                stderr=errors,
            )
        _show(process, board, files, console)
        board.close()
        said = files["errors"].read_text(encoding="utf-8", errors="replace").rstrip()
        if process.returncode != 0 and not board.errors and not said:
            said = files["output"].read_text(encoding="utf-8", errors="replace").rstrip()
    return process.returncode


def _show(process: "subprocess.Popen[bytes]", board: Board, files: Mapping[str, Path], console: Console) -> None:
    events, errors, logs = Lines(files["events"]), Lines(files["errors"]), JobLogs(board)
    with contextlib.closing(logs), Live(console=console, auto_refresh=False) as live:
        ended = False
        while not ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
                ended = True  # and what it wrote until then is still to be read
            for line in events.new():
                with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):  # of a kind unknown here
                    board.take(json.loads(line))
