"""Keep tritonserver running: start it again when it dies, and when another version is to be served.

Triton loads its models when it starts (model-control-mode none). So a rollback asks for a restart, by a file in the
model repository; and on one machine nobody else would bring back a server that was killed.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mnist.errors import PipelineError, ServerError

POLL_SECONDS = 0.2
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0  # before starting again, doubled each time
CRASHES = 5  # in a row, each before it ran STEADY_SECONDS: then it is given up
STEADY_SECONDS = 60.0
END_SECONDS = 20.0  # Triton's own exit timeout is shorter
SHARED_MEMORY = Path("/dev/shm")
_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


class Supervisor:
    """Runs one command as long as it is wanted.

    Args:
        command, environment: Of the server.
        ready_url: Answers 200 once it serves. A server that ends before that is not started again.
        restart_token: Whenever its answer changes, the server is stopped and started.
        check: Names what is to be served; raises a PipelineError where that is not fit for it.
        say: Takes a line for the log.
        memory_prefix: Begins the names of the server's shared memory, which a killed one leaves behind.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        ready_url: str,
        restart_token: Callable[[], str],
        check: Callable[[], str],
        say: Callable[[str], None],
        memory_prefix: str,
    ) -> None:
        self.command, self.environment = list(command), dict(environment)
        self.ready_url, self.restart_token, self.check, self.say = ready_url, restart_token, check, say
        self.memory_prefix = memory_prefix
        self._crashes = 0

    def run(self, stop: threading.Event) -> None:
        """Return once `stop` is set and the server has ended.

        Raises:
            PipelineError: what is to be served is not fit for it.
            ServerError: the server ended before it was ready, or keeps ending.
        """
        _adopt_orphans(True)
        try:
            self._keep_running(stop)
        finally:
            _adopt_orphans(False)

    def _keep_running(self, stop: threading.Event) -> None:
        while not stop.is_set():
            token, started = self.restart_token(), time.monotonic()
            self.say(f"starting Triton on {self.check()}")
            server = subprocess.Popen(self.command, env=self.environment)
            try:
                ready = self._watch(server, token, stop)
            finally:
                self._end(server)
            if stop.is_set() or self.restart_token() != token:
                continue
            if not ready:
                raise ServerError(f"tritonserver ended with {_status(server)} before it was ready; its log is above")
            self._pause(server, time.monotonic() - started, stop)

    def _watch(self, server: "subprocess.Popen[bytes]", token: str, stop: threading.Event) -> bool:
        """Until the server ends, or is to be ended; says whether it ever was ready."""
        ready, backends = False, set[int]()
        while server.poll() is None and not stop.wait(POLL_SECONDS):
            if not ready and answers(self.ready_url):
                ready, backends = True, _running_children(server.pid)
            if not backends <= _running_children(server.pid):
                # Triton goes on without it, says that it is ready, and fails each request that would be its own.
                self.say("one of Triton's backend processes ended")
                server.kill()
                server.wait()
            if (wanted := self.restart_token()) != token:
                try:
                    self.say(f"stopping Triton, to serve {self.check()}")
                    break
                except PipelineError as error:
                    token = wanted  # told once; what is served stays
                    self.say(f"not restarted: {error}")
        return ready

    def _end(self, server: "subprocess.Popen[bytes]") -> None:
        """Ask it to end; Triton lets requests in flight finish (its exit timeout). Then clear away what is left."""
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(END_SECONDS)
            server.kill()
            server.wait()
        for child in _children():  # the Python backends of a killed server
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        for left_over in SHARED_MEMORY.glob(f"{self.memory_prefix}*"):
            with contextlib.suppress(OSError):
                left_over.unlink()

    def _pause(self, server: "subprocess.Popen[bytes]", lived: float, stop: threading.Event) -> None:
        self._crashes = 1 if lived > STEADY_SECONDS else self._crashes + 1
        if self._crashes > CRASHES:
            raise ServerError(f"tritonserver ended {self._crashes} times in a row, last with {_status(server)}")
        pause = min(FIRST_PAUSE * 2 ** (self._crashes - 1), LONGEST_PAUSE)
        self.say(f"tritonserver ended with {_status(server)}: starting it again in {pause:.1f} s")
        stop.wait(pause)


def _status(server: "subprocess.Popen[bytes]") -> str:
    return f"signal {-server.returncode}" if server.returncode < 0 else f"exit status {server.returncode}"


def answers(url: str) -> bool:
    """Whether what listens there says 200."""
    try:
        with urllib.request.urlopen(url, timeout=1) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _adopt_orphans(wanted: bool) -> None:
    """A killed server's own processes become children of this one, so that they can be ended and waited for."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)


def _children(pid: int | None = None) -> list[int]:
    """Of this process, or of another one; each thread has its own."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid or os.getpid()}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread ended meanwhile
            found += map(int, listed.read_text(encoding="ascii").split())
    return found


def _running_children(pid: int) -> set[int]:
    """Without those that ended and were not waited for."""
    running = set()
    for child in _children(pid):
        with contextlib.suppress(OSError):
            state = (
                Path(f"/proc/{child}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
            )
            if state != "Z":
                running.add(child)
    return running
