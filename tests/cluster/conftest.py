"""Stack dev on a real cluster, in a copy of this checkout; skips, saying what is missing, where there is none."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkout import Checkout
from tests.cluster import stack


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """An `up` that builds images takes longer than other tests may."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(scope="session")
def mnist_url() -> Iterator[str]:
    """MNIST's files, served to the pods from this machine."""
    with stack.served(os.environ["MNIST_DIR"]) as url:
        yield url


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    made = cluster_checkout(tmp_path_factory)
    yield made
    made.run("down")


def cluster_checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    reason = stack.missing()
    if reason is not None:
        pytest.skip(reason)
    return stack.on_cluster(tmp_path_factory.mktemp("checkout"))
