"""Destroying stack dev. That a destroy with keepData leaves claim and namespace alone is tested with the faults."""

import subprocess

from tests.checkout import Checkout
from tests.cluster.stack import BETTER, NAMESPACE, context, settings


def test_destroy_leaves_nothing(dev: Checkout, mnist_url: str) -> None:
    dev.configure(**settings(mnist_url, **BETTER, runThrough="prepare-data"))
    assert dev.run("up").status == 0, "the setting must be taken over"
    assert dev.run("down").status == 0, "destroy must succeed"
    command = [
        "kubectl",
        "--context",
        context(dev),
        "get",
        "namespace",
        NAMESPACE,
        "--ignore-not-found",
        "--output=name",
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert found == "", "nothing may be left"
