"""Checkpoints come back as they were; whatever else lies there is refused and never executed."""

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnist.checkpoint import Checkpoint, TrainConfig, link_best, load, resumable, save
from mnist.errors import CheckpointError
from mnist.storage import Storage
from mnist.training import Tensors, Trainer
from tests.support import small_disk

CONFIG = TrainConfig("custom", "d", "t", 1, 2, 1e-3, 1, 0.0, 1, "c", "v")


@pytest.fixture(scope="module")
def unfinished() -> Checkpoint:
    few = Tensors(torch.zeros(4, 1, 28, 28), torch.tensor([0, 1, 2, 3]))
    return Trainer(CONFIG, few).checkpoint()


@pytest.fixture(scope="module")
def finished(unfinished: Checkpoint) -> Checkpoint:
    return replace(unfinished, complete=True, accuracy=0.9, optimizer=None)


@pytest.fixture(scope="module")
def whole(finished: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "checkpoint.pth"
    save(finished, path)
    return path.read_bytes()


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path)


def saved(storage: Storage, run: str, checkpoint: Checkpoint) -> Path:
    path = storage.checkpoints / run / "checkpoint.pth"
    save(checkpoint, path)
    return path


def test_a_checkpoint_comes_back_as_it_was(storage: Storage, unfinished: Checkpoint) -> None:
    checkpoint = replace(unfinished, history=[{"step": 1, "loss": 0.5}], network={"bytes_sent": 3}, seconds=1.5)
    loaded = load(saved(storage, "one", checkpoint))
    assert loaded.config == CONFIG, "it carries its own configuration"
    assert (loaded.history, loaded.network, loaded.seconds) == (checkpoint.history, {"bytes_sent": 3}, 1.5), "and these"
    assert all(torch.equal(loaded.model[name], tensor) for name, tensor in checkpoint.model.items()), "bit for bit"
    assert loaded.optimizer is not None, "training can go on from it"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=60), zipped=st.booleans(), protocol=st.booleans())
def test_arbitrary_bytes_never_raise_anything_else(
    tmp_path: Path, content: bytes, zipped: bool, protocol: bool
) -> None:
    path = tmp_path / "checkpoint.pth"
    text = b"\x80\x02" + content if protocol else content
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", text)
            archive.writestr("archive/version", "3")
    else:
        path.write_bytes(text)
    with pytest.raises(CheckpointError):
        load(path)


def test_a_full_disk_keeps_the_previous_checkpoint(storage: Storage, finished: Checkpoint, whole: bytes) -> None:
    with small_disk(storage.root / "disk", "60m") as disk:
        path = disk / "checkpoint.pth"
        save(finished, path)
        with pytest.raises(Exception, match="the disk is full"):
            save(replace(finished, accuracy=0.95), path)
        assert path.read_bytes() == whole, "the earlier result is intact"
        assert list(disk.iterdir()) == [path], "no half of the new one fills the disk"


def test_the_better_checkpoint_stays_the_best(storage: Storage, finished: Checkpoint) -> None:
    good, bad = saved(storage, "good", finished), saved(storage, "bad", replace(finished, accuracy=0.5))
    assert link_best(storage, good, finished) is None, "the first one is the best"
    assert link_best(storage, bad, replace(finished, accuracy=0.5)) == 0.9, "says what the better one has"
    assert storage.best_model.resolve() == good, "a worse one does not replace it"


def test_other_test_data_begin_anew(storage: Storage, finished: Checkpoint) -> None:
    link_best(storage, saved(storage, "good", finished), finished)
    other = replace(finished, accuracy=0.5, config=replace(CONFIG, test_digest="other"))
    path = saved(storage, "other", other)
    assert link_best(storage, path, other) is None, "accuracies on other data cannot be compared"
    assert storage.best_model.resolve() == path, "the newer data count"


def test_a_damaged_best_is_replaced(storage: Storage, finished: Checkpoint) -> None:
    path = saved(storage, "one", finished)
    storage.best_model.write_bytes(b"damaged")
    assert link_best(storage, path, finished) is None, "it is no better"
    assert storage.best_model.resolve() == path, "the new one takes its place"


def test_only_an_unfinished_checkpoint_of_the_same_configuration_resumes(
    storage: Storage, unfinished: Checkpoint, finished: Checkpoint
) -> None:
    saved(storage, "done", finished)
    saved(storage, "other", replace(unfinished, config=replace(CONFIG, seed=2)))
    (storage.checkpoints / "damaged").mkdir()
    (storage.checkpoints / "damaged" / "checkpoint.pth").write_bytes(b"damaged")
    assert resumable(storage, CONFIG) is None, "none of these"
    path = saved(storage, "this", unfinished)
    found = resumable(storage, CONFIG)
    assert found is not None and found[0] == path, "this one"
    for change in ({"seed": 3}, {"learning_rate": 0.1}, {"threads": 2}, {"code": "x"}, {"data_digest": "x"}):
        assert resumable(storage, replace(CONFIG, **change)) is None, f"{change} decides the weights, too"
