"""Ctrl-C, and the signals that count as it."""

import signal
from types import FrameType


def end_once() -> None:
    """Raise KeyboardInterrupt at the first of them, in the main thread; the next ones find it ending already."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
