"""Servers in processes of their own: how each is started, asked and ended."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench import ROOT
from bench.prepared import WORK, Exports
from bench.serving import repositories
from bench.serving.repositories import MODEL, Variant
from mnist.cpus import available_cpus
from mnist.storage import Storage

TRITON = ROOT / ".tools" / "triton"
MLSERVER = ROOT / ".venv-bench" / "mlserver" / "bin" / "mlserver"
MLSERVER_LIST = "bench/environments/mlserver.txt"
HOST = "127.0.0.1"
END_SECONDS = 30.0
SERVED = ("fp32", "int8")


@dataclass(frozen=True)
class Endpoint:
    """One model of one server, and what it must answer ("" where that is not the model's)."""

    protocol: str
    address: str
    model: str
    export: str = ""


@dataclass(frozen=True)
class Server:
    name: str
    command: tuple[str, ...]
    endpoints: dict[str, Endpoint]  # by the alternative's name
    environment: dict[str, str] = field(default_factory=dict)


class Running:
    """A server's processes."""

    def __init__(self, server: Server) -> None:
        self.log = WORK / "logs" / f"{server.name.replace('/', '-')}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                server.command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **server.environment},
            )

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def cpu_seconds(self) -> float:
        """Of all its processes so far."""
        total = 0.0
        leader = psutil.Process(self._process.pid)
        for process in (leader, *leader.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def memory_mb(self) -> float:
        """Of all its processes; what several share counts once (PSS)."""
        leader = psutil.Process(self._process.pid)
        return sum(one.memory_full_info().pss for one in (leader, *leader.children(recursive=True))) / 1e6

    def end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextlib.contextmanager
def running(server: Server) -> Iterator[Running]:
    process = Running(server)
    try:
        yield process
    finally:
        process.end()


def all_servers(exports: Exports) -> list[Server]:
    """Everything that is compared, MLServer where it is installed."""
    servers = [
        triton("ours fp32", repositories.with_onnx("ours-fp32", exports.model("fp32")), "fp32"),
        triton("ours int8", repositories.with_onnx("ours-int8", exports.model("int8")), "int8"),
        triton(
            "reference config fp32",
            repositories.with_onnx("reference-fp32", exports.model("fp32"), repositories.REFERENCE),
            "fp32",
        ),
        triton(
            "reference config unfolded",
            repositories.with_onnx("reference-unfolded", exports.model("unfolded"), repositories.REFERENCE),
            "unfolded",
        ),
        triton("triton no-op", repositories.with_noop("no-op", exports.model("fp32")), ""),
        aio("grpc.aio no-op", None),
        aio("grpc.aio", exports),
        fastapi(exports, 1),
        fastapi(exports, 2),
    ]
    return [*servers, mlserver(exports)] if MLSERVER.exists() else servers


def triton(name: str, storage: Storage, export: str) -> Server:
    """Through the project's own launcher."""
    grpc, http, metrics = free_ports(3)
    launcher = str(ROOT / "workloads" / "serving" / "launch.py")
    options = {"storage": storage.root, "triton": TRITON, "host": HOST, "model-name": MODEL}
    ports = {"grpc-port": grpc, "http-port": http, "metrics-port": metrics}
    command = (sys.executable, launcher, *(f"--{key}={value}" for key, value in {**options, **ports}.items()))
    return Server(name, command, {name: Endpoint("grpc", f"{HOST}:{grpc}", MODEL, export)})


def variant(which: Variant, exports: Exports, export: str) -> Server:
    storage = repositories.with_onnx(f"variant {export} {which}", exports.model(export), which.config())
    return triton(f"{export}: {which}", storage, export)


def aio(name: str, exports: Exports | None) -> Server:
    address = f"{HOST}:{free_ports(1)[0]}"
    command = (sys.executable, "-m", "bench.serving.aio_server", address, str(available_cpus()))
    if exports is None:
        return Server(name, command, {name: Endpoint("grpc", address, MODEL)})
    endpoints = {f"{name} {export}": Endpoint("grpc", address, export, export) for export in SERVED}
    return Server(name, (*command, _named(exports)), endpoints)


def fastapi(exports: Exports, workers: int) -> Server:
    port = free_ports(1)[0]
    options = {"host": HOST, "port": port, "workers": workers, "log-level": "warning"}
    start = (sys.executable, "-m", "uvicorn", "--factory", "bench.serving.fastapi_app:make", "--no-access-log")
    command = (*start, *(f"--{key}={value}" for key, value in options.items()))
    times = "" if workers == 1 else f" ×{workers}"
    endpoints = {
        f"fastapi {protocol}{times} {export}": Endpoint(
            protocol, f"http://{HOST}:{port}/{protocol}/{export}", export, export
        )
        for protocol, export in (("raw", "fp32"), ("raw", "int8"), ("json", "fp32"))
    }
    environment = {"BENCH_MODELS": _named(exports), "BENCH_THREADS": str(max(1, available_cpus() // workers))}
    return Server(f"fastapi ×{workers}", command, endpoints, environment)


def mlserver(exports: Exports) -> Server:
    """Inference in the server's own process: its pool of workers costs more than it gives with a light model."""
    http, grpc, metrics = free_ports(3)
    directory = WORK / "serving" / "mlserver"
    shutil.rmtree(directory, ignore_errors=True)
    settings = {"host": HOST, "http_port": http, "grpc_port": grpc, "metrics_port": metrics, "parallel_workers": 0}
    for export in SERVED:
        (directory / export).mkdir(parents=True)
        model = {"name": export, "implementation": "bench.serving.mlserver_runtime.OnnxModel"}
        content = json.dumps({**model, "parameters": {"uri": str(exports.model(export))}})
        (directory / export / "model-settings.json").write_text(content, encoding="utf-8")
    (directory / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    endpoints = {f"mlserver {export}": Endpoint("grpc", f"{HOST}:{grpc}", export, export) for export in SERVED}
    environment = {"BENCH_THREADS": str(available_cpus()), "PYTHONPATH": str(ROOT)}
    return Server("mlserver", (str(MLSERVER), "start", str(directory)), endpoints, environment)


def _named(exports: Exports) -> str:
    return ",".join(f"{name}={exports.model(name)}" for name in SERVED)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]


def log_tail(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "its log is empty"
