"""CPU limits, network counters, and the statistics of requests."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st

import client
from mnist.cpus import available_cpus
from mnist.inference import Load, Pixels, confidences, measure_one_by_one
from mnist.network import NetworkMonitor, Traffic


@pytest.fixture
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(8)))


@pytest.mark.usefixtures("eight_cpus")
@pytest.mark.parametrize(
    ("limit", "cpus"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("10000 100000\n", 1),
        ("1600000 100000\n", 8),
        ("", 8),
        ("garbage\n", 8),
        ("not numbers\n", 8),
    ],
)
def test_a_containers_limit_counts(tmp_path: Path, limit: str, cpus: int) -> None:
    (tmp_path / "cpu.max").write_text(limit, encoding="utf-8")
    assert available_cpus(tmp_path / "cpu.max") == cpus, "rounded up, at least one, no more than there are"


@pytest.mark.usefixtures("eight_cpus")
def test_without_a_limit_all_cpus_count(tmp_path: Path) -> None:
    assert available_cpus(tmp_path / "cpu.max") == 8, "those this process may run on"


def counters(*values: dict[str, tuple[int, int]]) -> Callable[..., object]:
    """psutil.net_io_counters that gives one of `values` after the other."""
    waiting = iter(values)

    def answer(pernic: bool) -> object:
        assert pernic, "loopback is told apart"
        return {
            name: SimpleNamespace(bytes_sent=sent, bytes_recv=received)
            for name, (sent, received) in next(waiting).items()
        }

    return answer


def test_the_network_monitor_counts_from_its_making_on(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {"lo": (1000, 1000), "eth0": (10, 20), "eth1": (1, 2)}
    after = {"lo": (9000, 9000), "eth0": (15, 27), "eth1": (1, 3)}
    monkeypatch.setattr(psutil, "net_io_counters", counters(before, after))
    assert NetworkMonitor().traffic() == Traffic(sent=5, received=8), "all interfaces but loopback"


def test_an_interface_that_goes_and_comes_takes_nothing_away(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {"eth0": (10, 20), "veth1": (5000, 6000), "veth2": (5000, 6000)}
    after = {"eth0": (15, 27), "veth2": (3, 4), "veth3": (1, 1)}
    monkeypatch.setattr(psutil, "net_io_counters", counters(before, after))
    assert NetworkMonitor().traffic() == Traffic(sent=9, received=12), "one is gone, one counts anew, one is new"


def test_the_network_monitor_reads_this_machine() -> None:
    traffic = NetworkMonitor().traffic()
    assert traffic.sent >= 0, "counters only grow"
    assert traffic.received >= 0, "counters only grow"


@given(st.lists(st.floats(1e-5, 10), min_size=1, max_size=50))
def test_percentiles_are_numpys(seconds: list[float]) -> None:
    latencies = np.array(seconds)
    load = Load(np.zeros((len(seconds), 10), np.float32), latencies, seconds=float(latencies.sum()))
    for name, percent in (("p50_ms", 50), ("p90_ms", 90), ("p99_ms", 99)):
        expected = np.percentile(latencies, percent) * 1e3
        assert load.summary()[name] == pytest.approx(expected, abs=5.1e-4), "in milliseconds, to the microsecond"


def test_throughput_counts_requests_and_images() -> None:
    load = Load(np.zeros((160, 10), np.float32), np.full(10, 0.1), seconds=2.0)
    summary = load.summary()
    assert summary["requests"] == 10, "requests"
    assert summary["requests_per_second"] == 5.0, "requests by time"
    assert summary["images_per_second"] == 80.0, "images by time"
    assert summary["mean_ms"] == 100.0, "the mean"


def test_answers_come_in_the_order_of_the_requests() -> None:
    def infer(pixels: Pixels) -> np.ndarray:
        return pixels[:, 0, 0, :10]

    requests = [np.full((1, 1, 28, 28), value, np.float32) for value in range(5)]
    load = measure_one_by_one(requests, infer)
    assert load.logits[:, 0].tolist() == [0, 1, 2, 3, 4], "in order"
    assert len(load.latencies) == 5, "one latency each"
    assert load.seconds >= load.latencies.sum(), "the whole is no shorter than its parts"


@given(np_st.arrays(np.float32, st.tuples(st.integers(1, 4), st.just(10)), elements=st.floats(-1e4, 1e4, width=32)))
def test_confidences_are_probabilities(logits: np.ndarray) -> None:
    probabilities = confidences(logits)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5), "they sum to one, however large the logits"
    assert probabilities.min() >= 0, "none is negative"
    chosen = probabilities[np.arange(len(logits)), logits.argmax(axis=1)]
    assert np.array_equal(chosen, probabilities.max(axis=1)), "the prediction has the highest"


def test_the_confusion_matrix_is_scikit_learns() -> None:
    random = np.random.default_rng(1)
    labels, predictions = random.integers(0, 10, 500).astype(np.uint8), random.integers(0, 9, 500)
    expected = sklearn.metrics.confusion_matrix(labels, predictions, labels=range(10))
    assert (client.confusion_matrix(labels, predictions) == expected).all(), "also where a digit is never predicted"
