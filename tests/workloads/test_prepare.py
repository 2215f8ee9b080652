"""prepare-data, from every source there is."""

import os
from pathlib import Path

import numpy as np
import pytest

import prepare
from mnist.data import FILES, MANIFEST, MNIST_SHA256, load, read_manifest
from mnist.storage import Storage
from tests.storages import write_subset
from tests.support import free_ports, make_read_only, refusal, run_main, small_disk, succeeded

IMAGES = FILES["t10k", "images"]
needs_mnist = pytest.mark.skipif(not os.environ.get("MNIST_DIR"), reason="needs the four files: set MNIST_DIR")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "storage")


@pytest.fixture
def no_mirrors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The public mirrors cannot be reached."""
    monkeypatch.setattr(prepare, "MIRRORS", (f"http://127.0.0.1:{free_ports(1)[0]}",))


@pytest.fixture
def dataset(originals: Path, tmp_path: Path) -> Path:
    (tmp_path / "dataset").mkdir()
    return write_subset(originals, tmp_path / "dataset", 20, 10)


@needs_mnist
def test_mnist_comes_from_a_directory_and_is_repaired_from_it(storage: Storage) -> None:
    options = ("--storage", storage.root, "--dataset", "mnist", "--dataset-dir", os.environ["MNIST_DIR"])
    said = succeeded(run_main(prepare.main, *options))
    assert "mnist: 60,000 training and 10,000 test images" in said, "all of it"
    manifest = read_manifest(storage.data)
    assert (manifest.dataset, manifest.sha256) == ("mnist", MNIST_SHA256), "the published sums"
    before = {path.name: path.stat().st_mtime_ns for path in storage.data.iterdir()}
    succeeded(run_main(prepare.main, *options))
    assert {path.name: path.stat().st_mtime_ns for path in storage.data.iterdir()} == before, "what is right is kept"
    (storage.data / IMAGES).write_bytes(b"damaged")
    succeeded(run_main(prepare.main, *options))
    changed = {path.name for path in storage.data.iterdir() if path.stat().st_mtime_ns != before[path.name]}
    assert changed == {IMAGES, MANIFEST}, "only the damaged file is fetched anew"
    assert len(load(storage.data, "t10k")[0]) == 10_000, "and right"


def test_digits_need_no_network(storage: Storage) -> None:
    said = succeeded(run_main(prepare.main, "--storage", storage.root, "--dataset", "digits"))
    assert "digits: 1,438 training and 359 test images" in said, "says what there is"
    assert read_manifest(storage.data).dataset == "digits", "it is recorded"


def test_a_data_set_of_ones_own_is_taken(storage: Storage, dataset: Path) -> None:
    options = ("--storage", storage.root, "--dataset", "custom", "--dataset-dir", dataset)
    assert "custom: 20 training and 10 test images" in succeeded(run_main(prepare.main, *options)), "as it is"
    assert np.array_equal(load(storage.data, "t10k")[0].shape, (10, 28, 28)), "ready to be loaded"


def test_the_data_of_before_stay_until_the_new_ones_are_whole(storage: Storage, dataset: Path) -> None:
    succeeded(run_main(prepare.main, "--storage", storage.root, "--dataset", "digits"))
    before = read_manifest(storage.data)
    whole = (dataset / IMAGES).read_bytes()
    (dataset / IMAGES).write_bytes(whole[:-30])
    options = ("--storage", storage.root, "--dataset", "custom", "--dataset-dir", dataset)
    refusal(run_main(prepare.main, *options))
    assert read_manifest(storage.data) == before and len(load(storage.data, "t10k")[0]) == 359, "as they were"
    (dataset / IMAGES).write_bytes(whole)
    succeeded(run_main(prepare.main, *options))
    assert len(load(storage.data, "t10k")[0]) == 10, "the new ones take their place"
    assert sorted(path.name for path in storage.data.iterdir()) == sorted([*FILES.values(), MANIFEST]), "nothing else"


@pytest.mark.usefixtures("no_mirrors")
def test_auto_falls_back_to_digits_and_says_so_loudly(storage: Storage) -> None:
    said = succeeded(run_main(prepare.main, "--storage", storage.root, "--dataset", "auto"))
    assert "warning: MNIST CANNOT BE HAD" in said, "nobody takes the digits for MNIST"
    assert "because MNIST cannot be had" in read_manifest(storage.data).source, "it is recorded"


@pytest.mark.usefixtures("no_mirrors")
def test_mnist_that_cannot_be_had_is_an_error_with_the_ways_out(storage: Storage) -> None:
    message = refusal(run_main(prepare.main, "--storage", storage.root, "--dataset", "mnist"))
    for way_out in ("datasetDir", "datasetUrl", "digits"):
        assert way_out in message, f"{way_out} is a way out"


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_storage_that_takes_nothing_is_refused(tmp_path: Path, fault: str) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        if fault == "read-only":
            make_read_only(disk)
        message = refusal(run_main(prepare.main, "--storage", disk, "--dataset", "digits"))
    assert ("32 MiB are needed" if fault == "full" else "the file system is read-only") in message, "the reason"
    assert str(disk) in message, "where"


def test_a_file_in_the_storages_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "storage").touch()
    message = refusal(run_main(prepare.main, "--storage", tmp_path / "storage", "--dataset", "digits"))
    assert "a file stands where a directory is needed" in message, "what is in the way"
