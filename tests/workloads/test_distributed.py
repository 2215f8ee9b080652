"""Training by several processes: each image once, the same learning, and a killed worker is no end."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import psutil
import torch
from hypothesis import given
from hypothesis import strategies as st

from mnist.checkpoint import load
from mnist.cli import last_finished, stage_log
from mnist.distributed import Workers
from mnist.storage import Storage
from mnist.training import batch_bounds
from pipeline.targets.local import torchrun
from tests.support import WORKLOADS

Copy = Callable[[Storage], Storage]
OPTIONS = ("--epochs", "2", "--batch-size", "32", "--checkpoint-every", "3", "--log-every", "1", "--threads", "1")


@given(count=st.integers(1, 8), batch=st.integers(0, 300))
def test_every_image_of_a_batch_is_one_workers(count: int, batch: int) -> None:
    indices = torch.randperm(batch)
    shares = [Workers(rank, count).share(indices) for rank in range(count)]
    assert sorted(torch.cat(shares).tolist()) == list(range(batch)), "none is left out, none is taken twice"
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1, "the work is shared evenly"


@given(images=st.integers(2, 5000), size=st.integers(16, 512), count=st.integers(1, 8))
def test_every_worker_has_two_images_of_every_batch(images: int, size: int, count: int) -> None:
    bounds = batch_bounds(images, size, least=2 * count)
    assert [start for start, _ in bounds][1:] == [end for _, end in bounds][:-1], "batches follow each other"
    assert (bounds[0][0], bounds[-1][1]) == (0, images), "and hold every image"
    if images >= 2 * count:
        assert all(end - start >= 2 * count for start, end in bounds), "batch norm needs two of each worker"


@contextlib.contextmanager
def started(storage: Storage, workers: int) -> "Iterator[subprocess.Popen[str]]":
    """As stack local starts them. They are not left behind, whatever happens."""
    command = [*torchrun(workers), str(WORKLOADS / "train.py"), "--storage", str(storage.root), *OPTIONS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.kill()
            for child in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()


def test_two_workers_learn_what_one_learns(small_storage: Storage, copy_of: Copy) -> None:
    """The rate, the epochs and the batch are the same; the losses differ by batch norm's statistics alone."""
    storage = copy_of(small_storage)
    with started(storage, 2) as process:
        said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, said
    assert "2 workers of 1 threads" in said, "the work is shared"
    assert said.count("epoch 2: test loss") == 1, "one of them tells"
    summary = last_finished(storage, "train")
    assert summary is not None and summary["config"]["workers"] == 2, "it is on record"
    steps = [entry["step"] for entry in summary["history"]]
    assert steps == list(range(1, 21)), "as many steps as one worker takes for 320 images, twice"
    assert summary["history"][0]["loss"] < 4, "the first loss is a mean over all of the batch"
    assert load(storage.best_model).complete, "one checkpoint, whole"
    assert len(list(storage.checkpoints.glob("*/checkpoint.pth"))) == 1, "one of them writes"


def test_a_killed_worker_sends_all_back_to_the_last_checkpoint(small_storage: Storage, copy_of: Copy) -> None:
    storage = copy_of(small_storage)
    with started(storage, 2) as process:
        log, deadline = stage_log(storage, "train"), time.monotonic() + 120
        while not (log.exists() and "step 5/20" in log.read_text(encoding="utf-8")):
            assert time.monotonic() < deadline and process.poll() is None, "it must get as far as step 5"
            time.sleep(0.05)
        follower = workers_of(process.pid)[1]
        meeting = psutil.Process(follower).environ()
        os.kill(follower, signal.SIGKILL)
        said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, f"the training must end well all the same: {said}"
    assert "going on at step" in said, "from the last checkpoint"
    assert meeting["TORCHELASTIC_USE_AGENT_STORE"] == "False", "nobody may meet those that died, by their addresses"
    summary = last_finished(storage, "train")
    assert summary is not None and len(summary["history"]) == 20, "no step is missing"


def workers_of(torchrun: int) -> list[int]:
    """The processes that train, by rank."""
    found = {}
    for child in psutil.Process(torchrun).children(recursive=True):
        if any(part.endswith("train.py") for part in child.cmdline()):
            found[int(child.environ()["RANK"])] = child.pid
    return [found[rank] for rank in sorted(found)]
