"""The pipeline on stack `dev`, with the images built and pulled before: as on stack `local`, on a real cluster."""

import os
import tempfile
from pathlib import Path

from tests.cluster import stack

from bench.errors import BenchError
from bench.pipeline import measure, up
from bench.prepared import Say
from bench.results import Recorder, Results

QUICK = {"dataset": "digits", "epochs": 1, "minAccuracy": "0"}


def run(short: bool, say: Say) -> Results:
    """In a copy of the checkout; what the tests on a cluster need, this needs too."""
    recorder = Recorder("cluster", "python -m bench cluster")
    reason = stack.missing()
    if reason is not None:
        raise BenchError(reason)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, stack.served(os.environ["MNIST_DIR"]) as url:
        checkout = stack.on_cluster(Path(directory) / "checkout")
        try:
            say("cluster: the images, by an `up` with little data: up to 15 min")
            checkout.configure(**stack.settings(url, **QUICK))
            up(checkout)
            if checkout.run("down").status != 0:
                raise BenchError("`down` failed")
            checkout.configure(**stack.settings(url))
            measure(checkout, recorder, say, fetch_logs=lambda: checkout.tool("cluster", "logs"))
        finally:
            checkout.run("down")
    return recorder.results()
