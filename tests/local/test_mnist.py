"""The main job on full MNIST, where its files can be had without a network (MNIST_DIR)."""

import os
from pathlib import Path

import pytest
from tests.checkout import Checkout

MNIST_DIR = os.environ.get("MNIST_DIR", "")


@pytest.mark.skipif(
    not Path(MNIST_DIR or "/nowhere").is_dir(), reason="MNIST_DIR names no directory with MNIST's files"
)
def test_one_epoch_of_mnist_is_served_at_98_5_percent_and_equals_pytorch(checkout: Checkout) -> None:
    checkout.configure(dataset="mnist", datasetDir=str(Path(MNIST_DIR).resolve()), keepData="false")
    done = checkout.run("up")
    assert done.status == 0, done.output
    results = checkout.results()
    assert results["dataset"] == "mnist", "the full data set must be used"
    assert results["test_images"] == 10_000, "the whole test set must be sent"
    assert results["accuracy"] >= 0.985, "one epoch must reach 98.5 % served through Triton"
    assert results["equal_to_pytorch"] == 10_000, "every served prediction must be PyTorch's"
    train = results["stages"]["train"]
    assert train["network"].keys() == {"bytes_sent", "bytes_received"}, "the results must state the network's bytes"
    assert len(results["samples"]) == 10, "ten samples must be kept"
    assert checkout.run("down").status == 0, "down must succeed"
    assert not checkout.processes(), "nothing may be left running"
