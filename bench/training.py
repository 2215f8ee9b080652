"""Training: images a second of four recipes in turns; and, apart, whole epochs of the baseline and of this project."""

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench import ROOT, prepared
from bench.errors import BenchError
from bench.figures import Ratio, add_round
from bench.prepared import Say
from bench.results import Recorder, Results
from bench.worker import Worker
from mnist.cli import last_finished
from mnist.storage import Storage

RECIPES = ("baseline", "in memory", "batch 256", "ours")
EPOCH = 60_000
ROUNDS, IMAGES = 7, 2048  # images of each recipe in each round
SHORT_ROUNDS, SHORT_IMAGES = 3, 1024
SEEDS = (1, 2, 3)


def throughput(short: bool, say: Say) -> Results:
    """Every recipe trains on the same number of images in each round, in a process of its own."""
    storage = prepared.data(say)
    recorder = Recorder("training", "python -m bench training")
    rounds, images = (SHORT_ROUNDS, SHORT_IMAGES) if short else (ROUNDS, IMAGES)
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker("bench.recipes", name, storage.root, 1)) for name in RECIPES}
        for worker in workers.values():
            worker.ask(images=512)  # what is made at the first steps
        for number in range(rounds):
            for name, worker in workers.items():
                answer = worker.ask(images=images)
                figures = {"images_per_second": images / answer["seconds"], "peak_mb": answer["peak_mb"]}
                add_round(recorder.rounds, name, figures)
            say(f"training: round {number + 1} of {rounds}")
    return recorder.results([Ratio("images_per_second", name, "baseline") for name in RECIPES[1:]])


def epochs(short: bool, say: Say) -> Results:
    """One epoch and its evaluation with each seed, of the baseline and of workloads/train.py, in turns."""
    storage = prepared.data(say)
    recorder = Recorder("epochs", "python -m bench epochs")
    for seed in SEEDS[:1] if short else SEEDS:
        say(f"training: the baseline's epoch with seed {seed}")
        with Worker("bench.recipes", "baseline", storage.root, seed) as worker:
            answer = worker.ask(images=EPOCH, accuracy=True)
        figures = {"seconds": answer["seconds"], "accuracy": answer["accuracy"], "peak_mb": answer["peak_mb"]}
        add_round(recorder.rounds, "baseline", figures)
        say(f"training: our epoch with seed {seed}")
        add_round(recorder.rounds, "ours", _our_epoch(storage, seed))
    return recorder.results([Ratio("seconds", "ours", "baseline", less_is_better=True)])


def _our_epoch(prepared_data: Storage, seed: int) -> dict[str, float]:
    """What users run, checkpoints included."""
    with tempfile.TemporaryDirectory(dir=prepared.WORK) as directory:
        storage = Storage(Path(directory))
        storage.data.parent.mkdir()
        storage.data.symlink_to(prepared_data.data)
        command = [sys.executable, str(prepared.WORKLOADS / "train.py"), "--storage", directory, "--seed", str(seed)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        summary = last_finished(storage, "train")
        if process.returncode != 0 or summary is None:
            raise BenchError(f"training ended with status {process.returncode}; its error is above")
    megabytes = used.ru_maxrss * 1024 / 1e6
    return {"seconds": summary["training_seconds"], "accuracy": summary["accuracy"], "peak_mb": megabytes}
