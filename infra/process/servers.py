"""Start, watch and stop a background server; ask it whether it is ready."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from process import records
from process.errors import CancelledError, ProcessError

Say = Callable[[str], None]

POLL_SECONDS = 0.1
STOP_SECONDS = 20.0
PORT_STEP, PORT_TRIES = 10, 50


def start_server(inputs: Mapping[str, Any], say: Say, cancelled: threading.Event, timeout: float) -> dict[str, Any]:
    """Stop an earlier instance, start a new one, wait until it says that it is ready.

    Returns:
        The resource's outputs.

    Raises:
        ProcessError: no free ports, it ended early (with its error line), or is not ready in time.
        CancelledError: the user interrupted; the server is stopped then.
    """
    name, directory = inputs["name"], inputs["directory"]
    previous = records.read(directory, name)
    stop_server(inputs)
    ports = _free_ports(name, inputs["wantedPorts"], previous, say)
    log = Path(directory) / "logs" / f"{name}-server.log"
    process = _spawn(name, [_with_ports(part, ports) for part in inputs["command"]], log)
    created = psutil.Process(process.pid).create_time()
    run = f"{process.pid}-{created:.2f}"
    record = {"pid": process.pid, "created": created, "ports": ports, "fingerprint": inputs["fingerprint"]}
    try:
        records.write(directory, name, {**record, "after": list(inputs["after"]), "run": run})
        _wait_ready(name, _with_ports(inputs["readyUrl"], ports), process, log, cancelled=cancelled, timeout=timeout)
    except ProcessError:
        _stop_group(name, record)  # also where it could not be recorded
        process.wait()
        records.remove(directory, name)
        raise
    listening = ", ".join(f"{kind} {port}" for kind, port in ports.items())
    say(f"ready on {listening}; log: {log}")
    return {**inputs, "run": run, "ports": ports, "pid": process.pid, "log": str(log)}


def is_running(inputs: Mapping[str, Any]) -> bool:
    """Whether the recorded process lives (and is not another one that got its number)."""
    return _process(records.read(inputs["directory"], inputs["name"])) is not None


def stop_server(inputs: Mapping[str, Any]) -> None:
    """Ask the whole process group to end, then kill what is left. Not running is fine.

    Raises:
        ProcessError: something survives.
    """
    name, directory = inputs["name"], inputs["directory"]
    record = records.read(directory, name)
    if record is not None:
        _stop_group(name, record)
    records.remove(directory, name)


def _stop_group(name: str, record: Mapping[str, Any]) -> None:
    group = _group_members(record)
    for number, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 5.0)):
        for process in group:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        # Not psutil.wait_procs: for it, one that ended lives on where the machine's init collects no orphans.
        deadline = time.monotonic() + patience
        while (group := _group_members(record)) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    if group:
        raise ProcessError(f"{name}: process {group[0].pid} cannot be stopped: stop it by hand")


def _spawn(name: str, command: list[str], log: Path) -> "subprocess.Popen[bytes]":
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": ""},
            )
    except OSError as error:
        raise ProcessError(f"{name}: cannot be started: {error}") from None


def _process(record: Mapping[str, Any] | None) -> psutil.Process | None:
    if record is None or "pid" not in record:
        return None
    try:
        process = psutil.Process(int(record["pid"]))
        same = abs(process.create_time() - float(record["created"])) < 0.1
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _group_members(record: Mapping[str, Any]) -> list[psutil.Process]:
    """The server's processes, also those that outlived their leader."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError, PermissionError):
            if os.getpgid(process.pid) != int(record["pid"]) or process.create_time() < float(record["created"]) - 0.1:
                continue
            if process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
    return members


def _free_ports(name: str, wanted: Mapping[str, float], previous: Mapping[str, Any] | None, say: Say) -> dict[str, int]:
    """The previous instance's ports, else the wanted ones, else the next free ones in steps of ten."""
    first = {kind: int(port) for kind, port in wanted.items()}
    candidates = [] if previous is None or "ports" not in previous else [previous["ports"]]
    candidates += [{kind: port + PORT_STEP * step for kind, port in first.items()} for step in range(PORT_TRIES)]
    for ports in candidates:
        if all(_is_free(port) for port in ports.values()):
            if not all(_is_free(port) for port in first.values()):
                say(f"ports {_listed(first)} are taken, using {_listed(ports)}")
            return dict(ports)
    raise ProcessError(
        f"{name}: ports {_listed(first)} and the {PORT_TRIES} alternatives after them are taken: free one"
    )


def _with_ports(text: str, ports: Mapping[str, int]) -> str:
    """Put in the ports; other braces, as in a path, stay."""
    for kind, port in ports.items():
        text = text.replace(f"{{{kind}}}", str(port))
    return text


def _listed(ports: Mapping[str, int]) -> str:
    return "/".join(map(str, ports.values()))


def _is_free(port: int) -> bool:
    if not 0 < port < 1 << 16:
        return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a closed connection's rest does not count
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def _wait_ready(
    name: str, url: str, process: "subprocess.Popen[bytes]", log: Path, *, cancelled: threading.Event, timeout: float
) -> None:
    deadline = time.monotonic() + timeout
    while not _answers(url):
        if cancelled.is_set():
            raise CancelledError(f"{name}: interrupted; the next `up` starts it again")
        if process.poll() is not None:
            raise ProcessError(f"{name}: {_last_error(log)}")
        if time.monotonic() > deadline:
            raise ProcessError(f"{name}: not ready after {timeout:.0f} s; log: {log}")
        time.sleep(POLL_SECONDS)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _last_error(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return f"{errors[-1] if errors else 'ended before it was ready'}; log: {log}"
