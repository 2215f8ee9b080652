"""A small storage, trained and exported once; each test gets copies to work on."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import export
import prepare
import train
from mnist.data import FILES, PARTS, Images, Labels, Split, read_pair, write_images, write_labels
from mnist.sources import write_digits
from mnist.storage import Storage
from tests.support import run_main, succeeded

TRAIN_IMAGES, TEST_IMAGES = 640, 200
# 320 images in 10 steps: enough to be interrupted.
QUICK = ("--epochs", 1, "--batch-size", 32, "--checkpoint-every", 3, "--log-every", 1, "--threads", 1)


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST where MNIST_DIR names it, else scikit-learn's digits: the tests need no network."""
    if os.environ.get("MNIST_DIR"):
        return Path(os.environ["MNIST_DIR"])
    directory = tmp_path_factory.mktemp("digits")
    write_digits(directory)
    return directory


def write_pair(directory: Path, split: Split, images: Images, labels: Labels) -> None:
    image_file, label_file = (directory / FILES[split, part] for part in PARTS)
    write_images(image_file, images)
    write_labels(label_file, labels)


def write_subset(originals: Path, directory: Path, train_images: int, test_images: int) -> Path:
    """The first images of the originals as a data set of its own."""
    counts: tuple[tuple[Split, int], ...] = (("train", train_images), ("t10k", test_images))
    for split, count in counts:
        images, labels = read_pair(originals, split)
        write_pair(directory, split, images.values[:count], labels.values[:count])
    return directory


def prepared(root: Path, dataset: Path) -> Storage:
    succeeded(run_main(prepare.main, "--storage", root, "--dataset", "custom", "--dataset-dir", dataset))
    return Storage(root)


@pytest.fixture(scope="session")
def small_storage(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """320 training and 100 test images, prepared. Not to be changed."""
    dataset = write_subset(originals, tmp_path_factory.mktemp("small"), 320, 100)
    return prepared(tmp_path_factory.mktemp("small-storage"), dataset)


@pytest.fixture(scope="session")
def trained_storage(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """A model that is good, but not perfect. Not to be changed."""
    dataset = write_subset(originals, tmp_path_factory.mktemp("dataset"), TRAIN_IMAGES, TEST_IMAGES)
    storage = prepared(tmp_path_factory.mktemp("trained"), dataset)
    options = ("--epochs", 2, "--batch-size", 32, "--checkpoint-every", 1000, "--threads", 1)
    succeeded(run_main(train.main, "--storage", storage.root, *options))
    return storage


@pytest.fixture(scope="session")
def exported_storage(trained_storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """The same with version 1 published. Not to be changed."""
    root = tmp_path_factory.mktemp("exported") / "storage"
    shutil.copytree(trained_storage.root, root, symlinks=True)
    succeeded(run_main(export.main, "--storage", root, "--min-accuracy", 0.5, "--serving-cpus", 2))
    return Storage(root)


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Storage], Storage]:
    """Makes a copy of a storage, to be changed."""

    def copy(storage: Storage) -> Storage:
        root = tmp_path / "storage"
        shutil.copytree(storage.root, root, symlinks=True)
        return Storage(root)

    return copy
