"""Servers: ports, readiness, and that stopping leaves nothing."""

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from process import records, servers
from process.errors import CancelledError, ProcessError
from tests.support import free_ports, gone, small_disk

pytestmark = [
    pytest.mark.usefixtures("no_strays"),
    # They are meant to outlive the object that started them.
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]

# Listens on the port it is told.
SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
# The same, with a child that takes no heed of SIGTERM and makes it wait until that is so.
PARENT = (
    """
import subprocess, sys
deaf = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf',flush=True); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-S", "-c", deaf], stdout=subprocess.PIPE)
child.stdout.readline()
"""
    + SERVER
)


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    monkeypatch.setattr(servers, "STOP_SECONDS", 0.5)  # how long the deaf child is waited for
    values = {
        "name": "triton",
        "command": [sys.executable, "-S", "-c", SERVER, "{http}"],
        "directory": str(tmp_path),
        "fingerprint": "f",
        "after": ["a"],
        "wantedPorts": {"http": free_ports(1)[0]},
        "readyUrl": "http://127.0.0.1:{http}/ready",
    }
    yield values
    servers.stop_server(values)
    gc.collect()  # an error of urllib keeps what started the server in a cycle; its warning is ignored here only


def start(inputs: dict[str, Any], said: list[str] | None = None, timeout: float = 30) -> dict[str, Any]:
    heard: list[str] = [] if said is None else said
    return servers.start_server(inputs, heard.append, threading.Event(), timeout)


def family(outputs: dict[str, Any]) -> list[psutil.Process]:
    leader = psutil.Process(outputs["pid"])
    return [leader, *leader.children(recursive=True)]


@contextlib.contextmanager
def listening(port: int) -> Iterator[None]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        yield


def test_a_server_is_ready_when_it_says_so(inputs: dict[str, Any]) -> None:
    said: list[str] = []
    outputs = start(inputs, said)
    assert outputs["ports"] == inputs["wantedPorts"], "on the wanted port"
    assert servers.is_running(inputs), "and runs"
    assert said == [f"ready on http {outputs['ports']['http']}; log: {outputs['log']}"], "says where"


def test_stopping_leaves_nothing(inputs: dict[str, Any]) -> None:
    processes = family(start({**inputs, "command": [sys.executable, "-S", "-c", PARENT, "{http}"]}))
    assert len(processes) == 2, "the server and its child"
    servers.stop_server(inputs)
    assert gone(processes) == [], "the deaf child was killed"
    assert not servers.is_running(inputs), "and it is known"
    servers.stop_server(inputs)  # once more: not running is fine


def test_taken_ports_give_way_to_the_next_free_ones(inputs: dict[str, Any]) -> None:
    wanted = inputs["wantedPorts"]["http"]
    said: list[str] = []
    with listening(wanted):
        chosen = start(inputs, said)["ports"]["http"]
    assert (chosen - wanted) % 10 == 0, "in steps of ten"
    assert chosen > wanted, "after the wanted one"
    assert said[0] == f"ports {wanted} are taken, using {chosen}", "and it is said"


def test_a_restarted_server_keeps_its_ports(inputs: dict[str, Any]) -> None:
    with listening(inputs["wantedPorts"]["http"]):
        first = start(inputs)["ports"]
    said: list[str] = []
    assert start(inputs, said)["ports"] == first, "its clients still find it"
    assert not any("taken" in line for line in said), "the wanted ports are free now: nobody took them"


def test_no_free_ports_at_all_is_an_error(inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "PORT_TRIES", 1)
    with listening(inputs["wantedPorts"]["http"]), pytest.raises(ProcessError, match=r"triton: ports \d+ .* are taken"):
        start(inputs)


def test_a_killed_server_is_noticed_and_started_again(inputs: dict[str, Any]) -> None:
    first = start({**inputs, "command": [sys.executable, "-S", "-c", PARENT, "{http}"]})
    processes = family(first)
    os.kill(first["pid"], signal.SIGKILL)
    psutil.wait_procs(processes[:1], timeout=10)
    assert not servers.is_running(inputs), "a dead one does not count as running"
    second = start(inputs)
    assert gone(processes) == [], "what the first one left is cleared away"
    assert second["run"] != first["run"], "what follows it runs again"


def test_one_that_ended_counts_as_stopped_where_nobody_collects_it(inputs: dict[str, Any]) -> None:
    careless = (
        "import subprocess,time; print(subprocess.Popen(['sleep','60'],process_group=0).pid,flush=1); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-S", "-c", careless], stdout=subprocess.PIPE) as init:
        assert init.stdout is not None
        server = psutil.Process(int(init.stdout.readline()))
        record = {"pid": server.pid, "created": server.create_time(), "ports": {}}
        records.write(inputs["directory"], "triton", record)
        servers.stop_server(inputs)  # in a container without an init it stays in the table for ever
        assert server.status() == psutil.STATUS_ZOMBIE, "it ended, and was not waited for"
        init.kill()


def test_another_process_with_the_same_number_is_not_the_server(inputs: dict[str, Any]) -> None:
    record = {"pid": os.getpid(), "created": 1.0, "ports": {}}
    records.write(inputs["directory"], "triton", record)
    assert not servers.is_running(inputs), "numbers come again after a restart of the machine"


def test_an_early_end_is_told_with_its_error_line(inputs: dict[str, Any]) -> None:
    code = "print('starting'); print('error: no published version'); raise SystemExit(1)"
    with pytest.raises(ProcessError, match=r"^triton: no published version; log: .*triton-server.log$"):
        start({**inputs, "command": [sys.executable, "-S", "-c", code]})
    assert not servers.is_running(inputs), "it does not count as running"


def test_an_early_end_without_a_word_points_to_the_log(inputs: dict[str, Any]) -> None:
    with pytest.raises(ProcessError, match=r"^triton: ended before it was ready; log: "):
        start({**inputs, "command": [sys.executable, "-S", "-c", "raise SystemExit(1)"]})


def test_a_server_that_is_never_ready_is_stopped(inputs: dict[str, Any]) -> None:
    with pytest.raises(ProcessError, match="triton: not ready after 0 s; log: "):
        start({**inputs, "command": [sys.executable, "-S", "-c", "import time; time.sleep(60)"]}, timeout=0.2)
    assert not servers.is_running(inputs), "it does not stay"


def test_cancelling_stops_the_server(inputs: dict[str, Any]) -> None:
    cancelled = threading.Event()
    cancelled.set()
    silent = {**inputs, "command": [sys.executable, "-S", "-c", "import time; time.sleep(60)"]}
    with pytest.raises(CancelledError, match="triton: interrupted"):
        servers.start_server(silent, print, cancelled, 30)
    assert not servers.is_running(inputs), "it does not stay"


def test_a_program_that_is_missing_is_named(inputs: dict[str, Any]) -> None:
    with pytest.raises(ProcessError, match=r"triton: cannot be started: .*no-such-program"):
        start({**inputs, "command": ["/no-such-program"]})


def test_braces_in_a_path_are_left_alone(inputs: dict[str, Any]) -> None:
    command = [*inputs["command"], "--storage=/home/{user}/{}"]
    assert start({**inputs, "command": command})["ports"] == inputs["wantedPorts"], "only port names are replaced"


def test_a_server_that_cannot_be_recorded_does_not_stay(inputs: dict[str, Any], tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        with pytest.raises(OSError, match="No space left"):
            (disk / "filler").write_bytes(bytes(2 << 20))
        with pytest.raises(ProcessError, match=r"triton: cannot write .*: no space left on device"):
            start({**inputs, "directory": str(disk)})
