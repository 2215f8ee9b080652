"""The launcher's supervisor: it starts a server again, gives up when that is in vain, and leaves nothing."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil

from serving import supervisor
from tests.checkout import ROOT
from tests.support import free_ports

# Serves the readiness URL; ends by itself when told so.
SERVER = """
import http.server, os, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        if self.path == "/end":
            threading.Timer(0.05, os._exit, [3]).start()
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
open(sys.argv[2], "a").write(f"{os.getpid()}\\n")
server.serve_forever()
"""
ENDS_AT_ONCE = "import sys; sys.exit(7)"


# The supervisor adopts, ends and awaits every child of its process, so it gets one of its own.
SUPERVISOR = """
import os, signal, sys, threading
from pathlib import Path
from mnist.errors import ModelError, PipelineError
from serving import supervisor
supervisor.FIRST_PAUSE, supervisor.POLL_SECONDS = 0.01, 0.02
port, directory, code = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
def read(name):
    return (directory / name).read_text() if (directory / name).exists() else ""
def check():
    if read("unfit"):
        raise ModelError(read("unfit"))
    return "version " + read("token")
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
try:
    supervisor.Supervisor(
        [sys.executable, "-S", "-c", code, port, str(directory / "starts")],
        os.environ,
        ready_url=f"http://127.0.0.1:{port}/ready",
        restart_token=lambda: read("token"),
        check=check,
        say=lambda line: print(line, flush=True),
        memory_prefix="supervised-test-",
    ).run(stop)
except PipelineError as error:
    sys.exit(f"error: {error}")
"""


class Supervised:
    """A supervisor in a process of its own."""

    def __init__(self, tmp_path: Path, code: str = SERVER) -> None:
        self.port, self.directory = free_ports(1)[0], tmp_path
        command = [sys.executable, "-c", SUPERVISOR, str(self.port), str(tmp_path), code]
        with (tmp_path / "log").open("w") as log:
            environment = {**os.environ, "PYTHONPATH": str(ROOT / "workloads")}
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def tell(self, **files: str) -> None:
        """What its token is, and what is unfit about the model: replaced whole, so that no half is read."""
        for name, text in files.items():
            (self.directory / f"{name}.new").write_text(text)
            (self.directory / f"{name}.new").replace(self.directory / name)

    def said(self) -> list[str]:
        return (self.directory / "log").read_text().splitlines()

    def pids(self) -> list[int]:
        starts = self.directory / "starts"
        return [int(line) for line in starts.read_text().splitlines()] if starts.exists() else []

    def ask(self, path: str) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5):
            pass

    def end(self, by_itself: bool = False) -> int:
        """Ask it to end, unless it does so by itself; its exit status."""
        if not by_itself:
            self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(30)
        assert not any(psutil.pid_exists(pid) for pid in self.pids()), "it leaves no server"
        return status


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_killed_server_is_started_again(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path)
    until(lambda: len(supervised.pids()) == 1)
    time.sleep(0.3)  # until it has been seen ready
    os.kill(supervised.pids()[0], signal.SIGKILL)
    until(lambda: len(supervised.pids()) == 2)
    assert supervised.end() == 0, "nothing went wrong"
    assert any("ended with signal 9: starting it again" in line for line in supervised.said()), "the log says why"


def test_a_server_that_keeps_ending_is_given_up(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path)
    for start in range(1, supervisor.CRASHES + 2):
        until(lambda start=start: len(supervised.pids()) == start)  # type: ignore[misc]
        time.sleep(0.3)
        supervised.ask("/end")
    until(lambda: "error:" in supervised.said()[-1])
    assert "ended 6 times in a row, last with exit status 3" in supervised.said()[-1], "with its status"
    assert supervised.end(by_itself=True) == 1, "it failed"


def test_a_server_that_ends_before_it_is_ready_is_not_started_again(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path, ENDS_AT_ONCE)
    until(lambda: "error:" in "".join(supervised.said()))
    assert "ended with exit status 7 before it was ready" in supervised.said()[-1], "a second try would end alike"
    assert supervised.end(by_itself=True) == 1, "it failed"


def test_a_change_of_the_token_restarts_the_server(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path)
    until(lambda: len(supervised.pids()) == 1)
    supervised.tell(token="2")
    until(lambda: len(supervised.pids()) == 2)
    supervised.end()
    assert "stopping Triton, to serve version 2" in supervised.said(), "the log says what for"


def test_what_is_not_fit_to_be_served_changes_nothing(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path)
    until(lambda: len(supervised.pids()) == 1)
    supervised.tell(unfit="model.onnx is damaged", token="2")
    until(lambda: "not restarted: model.onnx is damaged" in supervised.said())
    supervised.ask("/ready")
    supervised.end()
    assert len(supervised.pids()) == 1, "the server that runs stays"
