"""A real tritonserver for the tests: started by our launcher, on free ports, ended with the test."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from mnist.inference import ServedModel
from tests.support import TRITON, WORKLOADS, free_ports, gone

MODEL = "resnet18_mnist"


@dataclass(frozen=True)
class Triton:
    process: "subprocess.Popen[bytes]"
    endpoint: str
    http: str
    metrics: str

    def family(self) -> list[psutil.Process]:
        leader = psutil.Process(self.process.pid)
        return [leader, *leader.children(recursive=True)]


@contextlib.contextmanager
def running_triton(storage: Path, log: Path, *options: str) -> Iterator[Triton]:
    grpc, http, metrics = free_ports(3)
    command = [sys.executable, str(WORKLOADS / "serving" / "launch.py"), f"--storage={storage}", f"--triton={TRITON}"]
    command += ["--host=127.0.0.1", f"--grpc-port={grpc}", f"--http-port={http}", f"--metrics-port={metrics}", *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    triton = Triton(process, f"127.0.0.1:{grpc}", f"http://127.0.0.1:{http}", f"http://127.0.0.1:{metrics}")
    try:
        with ServedModel(triton.endpoint, MODEL) as model:
            model.wait_ready(60)
        yield triton
    finally:
        family = triton.family() if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        left = gone(family, patience=30)
        for number in left:
            psutil.Process(number).kill()
        process.wait()
        assert left == [], "Triton and its backends end when asked"
