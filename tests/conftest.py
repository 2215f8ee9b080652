"""A small storage, trained and exported once; each test gets copies to work on."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mnist.sources import write_digits
from mnist.storage import Storage
from tests.storages import prepared, write_subset
from tests.support import run_main, succeeded

TRAIN_IMAGES, TEST_IMAGES = 640, 200
LONGEST = "tests/local/"  # whole pipelines, minutes each


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no process is left with it alone at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST where MNIST_DIR names it, else scikit-learn's digits: the tests need no network."""
    if os.environ.get("MNIST_DIR"):
        return Path(os.environ["MNIST_DIR"])
    directory = tmp_path_factory.mktemp("digits")
    write_digits(directory)
    return directory


@pytest.fixture(scope="session")
def small_storage(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """320 training and 100 test images, prepared. Not to be changed."""
    dataset = write_subset(originals, tmp_path_factory.mktemp("small"), 320, 100)
    return prepared(tmp_path_factory.mktemp("small-storage"), dataset)


@pytest.fixture(scope="session")
def trained_storage(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """A model that is good, but not perfect. Not to be changed."""
    import train

    dataset = write_subset(originals, tmp_path_factory.mktemp("dataset"), TRAIN_IMAGES, TEST_IMAGES)
    storage = prepared(tmp_path_factory.mktemp("trained"), dataset)
    options = ("--epochs", 2, "--batch-size", 32, "--checkpoint-every", 1000, "--threads", 1)
    succeeded(run_main(train.main, "--storage", storage.root, *options))
    return storage


@pytest.fixture(scope="session")
def exported_storage(trained_storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """The same with version 1 published. Not to be changed."""
    import export

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
