"""What more replicas, training processes, resources of a stack bring; docs/scaling.md goes on from there."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import ROOT, prepared
from bench.errors import BenchError
from bench.figures import Ratio, add_round
from bench.prepared import Exports, Say
from bench.results import Recorder, Results
from bench.serving import repositories, servers
from bench.serving.loads import BATCHES, SINGLES, Bench
from bench.serving.repositories import Variant
from bench.serving.servers import Server
from bench.worker import Worker
from mnist.cli import last_finished
from mnist.data import FILES, PARTS, Split, read_pair, write_images, write_labels
from mnist.storage import Storage
from pipeline.targets.local import torchrun
from serving.supervisor import answers

AT_16 = next(load for load in SINGLES if load.concurrency == 16)
ONE_CPU = Variant(1, 1, repositories.shipped().queue_delay_us)
TRAIN_IMAGES, TEST_IMAGES = 8192, 1000
WORKERS = {"1 process of 1 thread": (1, 1), "2 processes of 1 thread": (2, 1), "1 process of 2 threads": (1, 2)}
PROGRAM = """\
import pulumi
from process.resources import Directory
for number in range({count}):
    Directory(f"directory-{{number}}", path=f"{directory}/{{number}}")
"""


def run(short: bool, say: Say) -> Results:
    exports, data = prepared.exports(say), prepared.data(say)
    recorder = Recorder("scaling", "python -m bench scaling")
    _replicas(recorder, exports, say, *((1, 0.5) if short else (5, 1.0)))
    _a_replica(recorder, exports, say, 1 if short else 5)
    _training(recorder, data, say, 1 if short else 2)
    _resources(recorder, say, (10, 50) if short else (10, 100, 300))
    return recorder.results(
        [
            Ratio("requests_per_second_at_16", "2 replicas", "1 replica"),
            Ratio("images_per_second", "2 processes of 1 thread", "1 process of 1 thread"),
            Ratio("images_per_second", "2 processes of 1 thread", "1 process of 2 threads"),
        ]
    )


def _replicas(recorder: Recorder, exports: Exports, say: Say, rounds: int, seconds: float) -> None:
    """Tritons of one CPU each, asked by one client that goes round them."""
    with ExitStack() as stack:
        say("scaling: one replica and two, of one CPU each")
        bench = Bench([_several(count, exports) for count in (1, 2)], exports, stack)
        for number in range(rounds):
            for load in (AT_16, BATCHES):
                for name in bench.names:
                    add_round(recorder.rounds, name, bench.measure(name, load, seconds))
            say(f"scaling: replicas, round {number + 1} of {rounds}")


def _several(count: int, exports: Exports) -> Server:
    name = f"{count} replica{'s' if count > 1 else ''}"
    storage = repositories.with_onnx(f"scaling-{count}", exports.model("fp32"), ONE_CPU.config())
    tritons = [servers.triton(name, storage, "fp32") for _ in range(count)]
    command = [sys.executable, "-m", "bench.serving.several"]
    for cpu, triton in enumerate(tritons):
        command += [*(["---"] if cpu else []), "taskset", "--cpu-list", str(cpu), *triton.command]
    endpoints = [triton.endpoints[name] for triton in tritons]
    address = f"ipv4:{','.join(endpoint.address for endpoint in endpoints)}"
    return Server(name, tuple(command), {name: dataclasses.replace(endpoints[0], address=address)})


def _a_replica(recorder: Recorder, exports: Exports, say: Say, rounds: int) -> None:
    """Seconds from its start until it is ready, and its memory once it has served."""
    load = {"concurrency": AT_16.concurrency, "seconds": 0.5}
    for number in range(rounds):
        server = servers.variant(ONE_CPU, exports, "fp32")
        [endpoint] = server.endpoints.values()
        target = {"protocol": endpoint.protocol, "address": endpoint.address, "model": endpoint.model}
        began = time.monotonic()
        with servers.running(server) as process, Worker("bench.serving.client") as client:
            while not answers(_http(server)):
                if time.monotonic() - began > 60 or not process.is_alive():
                    raise BenchError(f"a replica does not start: {servers.log_tail(process.log)}")
                time.sleep(0.02)
            seconds = time.monotonic() - began
            client.ask(target=target, batch=1, pixels=str(exports.pixels), load=load)
            add_round(recorder.rounds, "a replica", {"start_seconds": seconds, "memory_mb": process.memory_mb()})
        say(f"scaling: start of a replica, {number + 1} of {rounds}")


def _http(server: Server) -> str:
    port = next(part.partition("=")[2] for part in server.command if part.startswith("--http-port="))
    return f"http://{servers.HOST}:{port}/v2/health/ready"


def _training(recorder: Recorder, data: Storage, say: Say, rounds: int) -> None:
    """An epoch of some of the images by as many processes, started as the pipeline starts them."""
    with tempfile.TemporaryDirectory(dir=prepared.WORK) as directory:
        some = _some_images(data, Path(directory))
        for number in range(rounds):
            for name, (workers, threads) in WORKERS.items():
                say(f"scaling: training, {name}, round {number + 1} of {rounds}")
                rate = _trained(some, workers, threads)
                add_round(recorder.rounds, name, {"images_per_second": rate})


def _some_images(data: Storage, directory: Path) -> Storage:
    counts: dict[Split, int] = {"train": TRAIN_IMAGES, "t10k": TEST_IMAGES}
    files = directory / "files"
    for split, count in counts.items():
        images, labels = read_pair(data.data, split)
        image_file, label_file = (files / FILES[split, part] for part in PARTS)
        write_images(image_file, images.values[:count])
        write_labels(label_file, labels.values[:count])
    storage = Storage(directory / "storage")
    prepare = ["prepare.py", "--dataset", "custom", "--dataset-dir", str(files)]
    _run([sys.executable, str(prepared.WORKLOADS / prepare[0]), "--storage", str(storage.root), *prepare[1:]])
    return storage


def _trained(storage: Storage, workers: int, threads: int) -> float:
    shutil.rmtree(storage.checkpoints, ignore_errors=True)
    start = torchrun(workers) if workers > 1 else [sys.executable]
    script = [str(prepared.WORKLOADS / "train.py"), "--storage", str(storage.root), "--epochs", "1"]
    _run([*start, *script, "--threads", str(threads), "--checkpoint-every", "100000"])
    summary = last_finished(storage, "train")
    assert summary is not None, "it ended well"
    return float(summary["images_per_second"])


def _resources(recorder: Recorder, say: Say, counts: tuple[int, ...]) -> None:
    """A stack of directories: what it takes Pulumi, as hardly anything else has to be done."""
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=prepared.WORK) as directory:
            project = Path(directory)
            _write_project(project, count)
            _pulumi(project, "stack", "init")
            for step, command in (
                ("first up", ("up", "--yes", "--skip-preview")),
                ("unchanged up", ("up", "--yes", "--skip-preview")),
                ("destroy", ("destroy", "--yes", "--skip-preview")),
            ):
                say(f"scaling: {step} of {count} resources")
                began = time.monotonic()
                _pulumi(project, *command)
                add_round(recorder.rounds, f"{count} resources", {step: time.monotonic() - began})


def _write_project(project: Path, count: int) -> None:
    options = {"virtualenv": str(ROOT / ".venv")}
    plugin = {"name": "process", "path": str(ROOT / "infra" / "process")}
    content: dict[str, Any] = {"name": "scaling", "runtime": {"name": "python", "options": options}}
    content |= {"backend": {"url": f"file://{project / 'state'}"}, "plugins": {"providers": [plugin]}}
    (project / "state").mkdir()
    (project / "Pulumi.yaml").write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
    program = PROGRAM.format(count=count, directory=project / "made")
    (project / "__main__.py").write_text(program, encoding="utf-8")


def _pulumi(project: Path, *arguments: str) -> None:
    import stack  # tools/stack.py knows what Pulumi needs

    environment = stack.environment("local") | {"PYTHONPATH": str(ROOT / "infra")}
    environment.pop("PULUMI_BACKEND_URL", None)
    _run(["pulumi", *arguments, "--stack", "scaling", "--non-interactive"], cwd=project, env=environment)


def _run(command: list[str], cwd: Path = ROOT, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env or dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError(f"{Path(command[0]).name} ended with {done.returncode}: {done.stdout.strip()[-500:]}")
