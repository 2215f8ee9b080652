"""What the tests of processes share."""

import sys
from collections.abc import Iterator

import psutil
import pytest


@pytest.fixture
def no_strays() -> Iterator[None]:
    """Fails a test that leaves a process of its own behind."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    yield
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    alive = [child for child in left if child.status() != psutil.STATUS_ZOMBIE]
    for child in alive:
        child.kill()
    psutil.wait_procs(left, timeout=5)
    assert alive == [], f"nothing is left running by {sys.argv[0]}"
