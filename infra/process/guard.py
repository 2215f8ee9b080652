"""Run a command so that it cannot outlive whoever started it.

    python guard.py COMMAND...

The command gets a process group of its own. When standard input closes (the parent ended it, or died), the whole group
is asked to stop, and killed if it does not. Uses the standard library only, to start fast.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

GRACE_SECONDS = 20.0  # a training writes a last checkpoint in that time


def main() -> int:
    child = subprocess.Popen(sys.argv[1:], start_new_session=True, stdin=subprocess.DEVNULL)
    threading.Thread(target=_stop_at_end_of_input, args=(child,), daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _signal_group(child.pid, signal.SIGTERM))
    status = child.wait()
    _signal_group(child.pid, signal.SIGKILL)  # whatever it left behind
    return status if status >= 0 else 128 - status


def _stop_at_end_of_input(child: "subprocess.Popen[bytes]") -> None:
    while os.read(0, 1024):
        pass
    _signal_group(child.pid, signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    _signal_group(child.pid, signal.SIGKILL)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main())
