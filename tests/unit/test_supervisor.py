"""The launcher's supervisor: it starts a server again, gives up when that is in vain, and leaves nothing."""

import os
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from mnist.errors import ModelError, ServerError
from serving import supervisor
from serving.supervisor import Supervisor
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


class Supervised:
    """A supervisor in a thread."""

    def __init__(self, tmp_path: Path, code: str = SERVER) -> None:
        self.port, self.starts, self.token = free_ports(1)[0], tmp_path / "starts", ""
        self.unfit: str | None = None
        self.said, self.stop, self.error = list[str](), threading.Event(), list[Exception]()
        self._supervisor = Supervisor(
            [sys.executable, "-S", "-c", code, str(self.port), str(self.starts)],
            os.environ,
            ready_url=f"http://127.0.0.1:{self.port}/ready",
            restart_token=lambda: self.token,
            check=self._check,
            say=self.said.append,
            memory_prefix="supervised-test-",
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _check(self) -> str:
        if self.unfit is not None:
            raise ModelError(self.unfit)
        return f"version {self.token}"

    def _run(self) -> None:
        try:
            self._supervisor.run(self.stop)
        except (ServerError, ModelError) as error:
            self.error.append(error)

    def pids(self) -> list[int]:
        return [int(line) for line in self.starts.read_text().splitlines()] if self.starts.exists() else []

    def ask(self, path: str) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5):
            pass

    def end(self) -> None:
        self.stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), "it must end when asked"
        assert not any(psutil.pid_exists(pid) for pid in self.pids()), "and leave no server"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(supervisor, "POLL_SECONDS", 0.02)


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
    supervised.end()
    assert any("ended with signal 9: starting it again" in line for line in supervised.said), "the log says why"
    assert supervised.error == [], "nothing went wrong"


def test_a_server_that_keeps_ending_is_given_up(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path)
    for start in range(1, supervisor.CRASHES + 2):
        until(lambda start=start: len(supervised.pids()) == start)  # type: ignore[misc]
        time.sleep(0.3)
        supervised.ask("/end")
    until(lambda: supervised.error)
    assert "ended 6 times in a row, last with exit status 3" in str(supervised.error[0]), "with its status"
    supervised.end()


def test_a_server_that_ends_before_it_is_ready_is_not_started_again(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path, ENDS_AT_ONCE)
    until(lambda: supervised.error)
    assert "ended with exit status 7 before it was ready" in str(supervised.error[0]), "a second try would end alike"
    supervised.end()


def test_a_change_of_the_token_restarts_the_server(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path)
    until(lambda: len(supervised.pids()) == 1)
    supervised.token = "2"
    until(lambda: len(supervised.pids()) == 2)
    supervised.end()
    assert "stopping Triton, to serve version 2" in supervised.said, "the log says what for"


def test_what_is_not_fit_to_be_served_changes_nothing(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path)
    until(lambda: len(supervised.pids()) == 1)
    supervised.unfit, supervised.token = "model.onnx is damaged", "2"
    until(lambda: "not restarted: model.onnx is damaged" in supervised.said)
    supervised.ask("/ready")
    supervised.end()
    assert len(supervised.pids()) == 1, "the server that runs stays"
