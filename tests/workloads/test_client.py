"""The client against the real Triton."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import client
from mnist.data import FILES
from mnist.storage import Storage
from tests.support import free_ports, refusal, run_main, succeeded
from tests.workloads.triton import MODEL, Triton, running_triton

Copy = Callable[[Storage], Storage]


@pytest.fixture(scope="module")
def served(exported_storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with running_triton(exported_storage.root, tmp_path_factory.mktemp("triton") / "log") as server:
        yield server


@pytest.fixture(autouse=True)
def few_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SINGLES", 20)


def check(storage: Storage, endpoint: str, *options: object) -> Any:
    return run_main(client.main, "--storage", storage.root, "--endpoint", endpoint, "--min-accuracy", 0.1, *options)


def latest(storage: Storage) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((storage.latest_results / "results.json").read_text(encoding="utf-8"))
    return found


def test_a_working_model_passes_and_all_of_it_is_written(
    served: Triton, exported_storage: Storage, copy_of: Copy
) -> None:
    storage = copy_of(exported_storage)
    said = succeeded(check(storage, served.endpoint))
    results = latest(storage)
    assert results["verdict"] == "passed", "no gate was missed"
    assert f"accuracy {results['accuracy']:.4f} on 200 images" in said, "the figure is told"
    metadata = json.loads((storage.models / MODEL / "1" / "metadata.json").read_text(encoding="utf-8"))
    assert results["accuracy"] == metadata["accuracy"], "served as well as exported"
    assert results["equal_to_pytorch"] == results["test_images"] == 200, "every prediction equals PyTorch's"
    assert sum(map(sum, results["confusion"])) == 200, "every image is in the confusion matrix"
    assert [sample["label"] for sample in results["samples"]] == list(range(10)), "one sample of each digit"
    assert all(0 < sample["confidence"] <= 1 for sample in results["samples"]), "with its confidence"
    assert set(results["load"]) == {"batches", "single", "concurrency_4", "concurrency_16"}, "each way of asking"
    for load in results["load"].values():
        assert 0 < load["p50_ms"] <= load["p90_ms"] <= load["p99_ms"], "latencies"
        assert load["requests_per_second"] > 0, "throughput"
    assert "network" in results["stages"]["train"], "the training's traffic is stated"
    run = storage.latest_results.resolve()
    assert (run / "samples.png").read_bytes().startswith(b"\x89PNG"), "a picture of the samples"
    assert len(json.loads((run / "latencies.json").read_text(encoding="utf-8"))["single"]) == 20, "every latency"
    mistakes = json.loads((run / "mistakes.json").read_text(encoding="utf-8"))
    assert len(mistakes) == round(200 * (1 - results["accuracy"])), "every mistake"
    assert all(mistake["label"] != mistake["prediction"] for mistake in mistakes), "and nothing else"


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--min-accuracy", 1.0, "is below minAccuracy 1.0"),
        ("--max-latency-ms", 0.0001, "is above maxLatencyMs 0.0001"),
    ],
)
def test_a_missed_gate_fails_and_the_results_are_there(
    served: Triton, exported_storage: Storage, copy_of: Copy, option: str, value: float, reason: str
) -> None:
    storage = copy_of(exported_storage)
    message = refusal(check(storage, served.endpoint, option, value))
    assert reason in message, "which gate, with both figures"
    assert str(storage.latest_results.resolve() / "results.json") in message, "where to read more"
    assert reason in latest(storage)["verdict"], "the results say so, too"


def test_an_endpoint_that_does_not_answer_is_named(exported_storage: Storage, copy_of: Copy) -> None:
    storage, endpoint = copy_of(exported_storage), f"127.0.0.1:{free_ports(1)[0]}"
    message = refusal(check(storage, endpoint, "--deadline", 0.2))
    assert f"{MODEL} at {endpoint} is not ready after 0 s: see Triton's log" in message, "what, where, and what to do"
    assert not storage.latest_results.exists(), "no results of nothing"


def test_a_model_that_is_not_served_is_named(served: Triton, exported_storage: Storage, copy_of: Copy) -> None:
    storage = copy_of(exported_storage)
    message = refusal(check(storage, served.endpoint, "--model-name", "other", "--deadline", 0.2))
    assert "other at" in message and "is not ready" in message, "which one"


def test_damaged_test_data_are_named(served: Triton, exported_storage: Storage, copy_of: Copy) -> None:
    storage = copy_of(exported_storage)
    path = storage.data / FILES["t10k", "labels"]
    path.write_bytes(path.read_bytes()[:-4])
    assert str(path) in refusal(check(storage, served.endpoint)), "which file"
