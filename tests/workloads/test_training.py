"""Training is deterministic, resumes to the same weights, and writes what is promised."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from mnist import data
from mnist.checkpoint import Checkpoint, TrainConfig, load
from mnist.cli import last_finished
from mnist.storage import Storage
from mnist.training import Tensors, Trainer, batch_bounds, epoch_order
from tests.storages import QUICK
from tests.support import WORKLOADS, make_read_only, refusal, run_main, small_disk, succeeded

Copy = Callable[[Storage], Storage]


def same_weights(left: Checkpoint, right: Checkpoint) -> bool:
    return all(torch.equal(tensor, right.model[name]) for name, tensor in left.model.items())


@pytest.fixture(scope="module")
def reference(small_storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """An uninterrupted training."""
    root = tmp_path_factory.mktemp("reference")
    (root / "data").symlink_to(small_storage.root / "data")
    succeeded(run_main(train.main, "--storage", root, *QUICK))
    return Storage(root)


def test_the_same_seed_gives_the_same_weights(small_storage: Storage, reference: Storage, copy_of: Copy) -> None:
    storage = copy_of(small_storage)
    succeeded(run_main(train.main, "--storage", storage.root, *QUICK))
    assert same_weights(load(storage.best_model), load(reference.best_model)), "bit for bit"


def test_another_seed_gives_other_weights(small_storage: Storage, reference: Storage, copy_of: Copy) -> None:
    storage = copy_of(small_storage)
    succeeded(run_main(train.main, "--storage", storage.root, *QUICK, "--seed", 2))
    assert not same_weights(load(storage.best_model), load(reference.best_model)), "the seed counts"


def start_and_signal(storage: Storage, number: int) -> tuple[int, str]:
    """Train as a process and send it a signal in the middle; its status and its standard error."""
    command = [sys.executable, str(WORKLOADS / "train.py"), "--storage", str(storage.root), *map(str, QUICK)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            if line.startswith("step 5/10"):
                os.kill(process.pid, number)
                break
        errors = process.stderr.read()
        return process.wait(), errors


def test_a_killed_training_resumes_to_the_same_weights(
    small_storage: Storage, reference: Storage, copy_of: Copy
) -> None:
    storage = copy_of(small_storage)
    status, _ = start_and_signal(storage, signal.SIGKILL)
    assert status == -signal.SIGKILL, "killed in its middle"
    assert not storage.best_model.exists(), "nothing is called the best yet"
    said = succeeded(run_main(train.main, "--storage", storage.root, *QUICK))
    assert "going on at step" in said, "the earlier steps were not in vain"
    resumed, whole = load(storage.best_model), load(reference.best_model)
    assert same_weights(resumed, whole), "bit for bit as if nothing had happened"
    assert resumed.history == whole.history, "the curves are whole"
    assert resumed.accuracy == whole.accuracy, "the same result"


def test_a_stopped_training_writes_a_checkpoint_and_resumes(
    small_storage: Storage, reference: Storage, copy_of: Copy
) -> None:
    storage = copy_of(small_storage)
    status, errors = start_and_signal(storage, signal.SIGTERM)
    assert status == 130, "interrupted, not failed"
    assert errors.count("error: training stopped at step") == 1, "says where it stopped, in one line"
    assert "Traceback" not in errors, "stopping is no fault"
    (path,) = storage.checkpoints.glob("*/checkpoint.pth")
    step = load(path).step
    assert step >= 5, "no step that was done is lost"
    said = succeeded(run_main(train.main, "--storage", storage.root, *QUICK))
    assert f"going on at step {step} of 10" in said or step == 10, "from that very step"
    assert same_weights(load(storage.best_model), load(reference.best_model)), "bit for bit"


@pytest.mark.parametrize("stop_at", [2, 4])
def test_a_training_stopped_at_the_end_of_an_epoch_still_evaluates_it(stop_at: int) -> None:
    images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    few = Tensors(images, torch.tensor([0, 1, 2, 3]))
    config = TrainConfig("custom", "d", "t", 2, 2, 1e-3, 1, 0.0, 1, "c", "v")
    stop, evaluated = threading.Event(), list[int]()

    def each_step(trainer: Trainer) -> None:
        if trainer.step == stop_at:
            stop.set()

    def end_of_epoch(trainer: Trainer) -> bool:
        evaluated.append(trainer.step)
        trainer.epochs.append({"epoch": trainer.step // trainer.batches})
        return False

    first = Trainer(config, few)
    assert not first.run(each_step, end_of_epoch, stop), "stopped is not finished"
    second = Trainer(config, few, resume=first.checkpoint())
    assert second.run(lambda _: None, end_of_epoch, threading.Event()), "the resumed one is"
    assert evaluated == [2, 4], "each epoch is evaluated, once"


def test_the_best_model_is_a_relative_link_into_its_run(reference: Storage) -> None:
    target = Path(os.readlink(reference.best_model))
    assert not target.is_absolute(), "the storage can be mounted elsewhere"
    assert (reference.checkpoints / target).is_file(), "it leads to a checkpoint"
    assert target.name == "checkpoint.pth", "to a run's checkpoint"


def test_progress_told_seldom_still_has_a_rate() -> None:
    images = torch.rand(4, 1, 28, 28)
    trainer = Trainer(
        TrainConfig("custom", "d", "t", 50, 2, 1e-3, 1, 0.0, 1, "c", "v"), Tensors(images, torch.arange(4))
    )
    trainer.step, trainer.history = 60, [{"step": 1.0, "loss": 1.0, "accuracy": 0.5}] * 60
    progress = trainer.progress(since=0)
    assert progress.images_per_second > 0, "over all steps since the beginning"
    assert progress.seconds_left < 3600, "so the time left is no fancy"


def test_the_log_is_json_lines_with_the_progress(reference: Storage) -> None:
    entries = [json.loads(line) for line in (reference.logs / "train.log").read_text(encoding="utf-8").splitlines()]
    progress = [entry for entry in entries if entry["event"] == "progress"]
    assert [entry["step"] for entry in progress] == list(range(1, 11)), "one for each step, as --log-every 1 asks"
    needed = {"loss", "accuracy", "images_per_second", "seconds_left", "time"}
    assert all(needed <= set(entry) for entry in progress), "what a program needs to draw it"
    assert [entry["event"] for entry in entries][-1] == "finished", "its end is told"


def test_the_summary_states_accuracy_and_network_traffic(reference: Storage) -> None:
    summary = last_finished(reference, "train")
    assert summary is not None, "it ended well"
    assert set(summary["network"]) == {"bytes_sent", "bytes_received"}, "both directions"
    assert all(isinstance(count, int) and count >= 0 for count in summary["network"].values()), "bytes"
    checkpoint = load(reference.best_model)
    assert summary["accuracy"] == checkpoint.accuracy == summary["epochs"][-1]["test_accuracy"], "one figure"
    assert checkpoint.network == summary["network"], "the checkpoint carries it"


def test_a_good_model_is_learned(trained_storage: Storage) -> None:
    assert load(trained_storage.best_model).accuracy > 0.5, "a few steps suffice for that"


def test_a_reached_target_stops_the_training(small_storage: Storage, copy_of: Copy) -> None:
    storage = copy_of(small_storage)
    options = (*QUICK, "--epochs", 50, "--target-accuracy", 0.01)
    succeeded(run_main(train.main, "--storage", storage.root, *options))
    assert load(storage.best_model).step == 10, "after the first epoch"


def test_training_without_data_names_the_stage_to_run(tmp_path: Path) -> None:
    message = refusal(run_main(train.main, "--storage", tmp_path, *QUICK))
    assert "dataset.json is missing: run the prepare-data stage first" in message, "what to do"


def test_damaged_data_are_refused_and_earlier_results_stay(reference: Storage, tmp_path: Path, copy_of: Copy) -> None:
    storage = copy_of(Storage(reference.root))
    (storage.root / "data").unlink()
    (tmp_path / "storage" / "data" / "mnist").mkdir(parents=True)
    for path in reference.data.iterdir():
        (storage.data / path.name).write_bytes(path.read_bytes()[:-9] if "images" in path.name else path.read_bytes())
    before = storage.best_model.read_bytes()
    message = refusal(run_main(train.main, "--storage", storage.root, *QUICK))
    assert str(storage.data / data.FILES["train", "images"]) in message, "says which file"
    assert storage.best_model.read_bytes() == before, "the earlier checkpoint is intact"


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_storage_that_takes_no_checkpoint_is_refused(small_storage: Storage, tmp_path: Path, fault: str) -> None:
    with small_disk(tmp_path / "disk", "8m") as disk:
        for path in small_storage.data.iterdir():
            (disk / "data" / "mnist").mkdir(parents=True, exist_ok=True)
            (disk / "data" / "mnist" / path.name).write_bytes(path.read_bytes())
        if fault == "read-only":
            make_read_only(disk)
        message = refusal(run_main(train.main, "--storage", disk, *QUICK))
    assert ("400 MiB are needed" if fault == "full" else "the file system is read-only") in message, "the reason"
    assert str(disk) in message, "where"


@pytest.mark.parametrize(
    ("count", "size", "bounds"),
    [
        (10, 4, [(0, 4), (4, 8), (8, 10)]),
        (9, 4, [(0, 4), (4, 9)]),
        (8, 4, [(0, 4), (4, 8)]),
        (3, 4, [(0, 3)]),
        (1, 4, [(0, 1)]),
    ],
)
def test_no_batch_has_one_image_alone(count: int, size: int, bounds: list[Any]) -> None:
    assert batch_bounds(count, size) == bounds, "batch norm needs two values"


def test_each_epoch_has_an_order_of_its_own() -> None:
    orders = [epoch_order(100, 1, epoch).tolist() for epoch in (0, 0, 1)]
    assert orders[0] == orders[1], "the same epoch has the same order"
    assert orders[0] != orders[2], "another one has another"
    assert sorted(orders[2]) == list(range(100)), "every image once"
