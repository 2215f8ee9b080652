"""Our backend inside the real tritonserver, and the launcher in front of it."""

import asyncio
import json
import os
import signal
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
from tritonclient.utils import InferenceServerException

from mnist import data, onnx_model
from mnist.errors import ServerError
from mnist.inference import Logits, Pixels, ServedModel
from mnist.storage import Storage
from serving import launch
from tests.support import TRITON, gone, refusal, run_main
from tests.workloads.triton import MODEL, Triton, running_triton

Copy = Callable[[Storage], Storage]


@pytest.fixture(scope="module")
def triton(exported_storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with running_triton(exported_storage.root, tmp_path_factory.mktemp("triton") / "log") as server:
        yield server


@pytest.fixture
def model(triton: Triton) -> Iterator[ServedModel]:
    with ServedModel(triton.endpoint, MODEL) as served:
        yield served


@pytest.fixture(scope="module")
def pixels(exported_storage: Storage) -> Pixels:
    images, _ = data.load(exported_storage.data, "t10k")
    return images[:64, None].astype(np.float32) / np.float32(255)


@pytest.fixture(scope="module")
def expected(exported_storage: Storage, pixels: Pixels) -> Logits:
    """What ONNX Runtime says in this process."""
    return onnx_model.predict(onnx_model.session(exported_storage.models / MODEL / "1" / "model.onnx", 1), pixels)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16])
def test_a_batch_is_answered_as_by_onnx_runtime(
    model: ServedModel, pixels: Pixels, expected: Logits, size: int
) -> None:
    answer = model.infer(pixels[:size])
    assert answer.shape == (size, 10), "ten logits for each image"
    assert np.allclose(answer, expected[:size], atol=1e-4), "the same model, the same answer"


@pytest.mark.parametrize("size", [1, 3])
def test_concurrent_requests_each_get_their_own_answer(
    triton: Triton, model: ServedModel, pixels: Pixels, expected: Logits, size: int
) -> None:
    requests = [pixels[start : start + size] for start in range(0, 60, size)] * 4
    load = model.infer_concurrently(requests, 16)
    assert np.allclose(load.logits, np.concatenate([expected[:60]] * 4), atol=1e-4), "none gets another's"
    assert len(load.latencies) == len(requests) and (load.latencies > 0).all(), "each was timed"


def test_requests_are_brought_together_in_batches(triton: Triton, model: ServedModel, pixels: Pixels) -> None:
    def counted() -> tuple[int, int]:
        with urllib.request.urlopen(f"{triton.http}/v2/models/{MODEL}/stats", timeout=10) as response:
            stats = json.load(response)["model_stats"][0]
        return stats["inference_count"], stats["execution_count"]

    images_before, runs_before = counted()
    model.infer_concurrently([pixels[:1]] * 400, 16)
    images, runs = counted()
    assert images - images_before == 400, "all were answered"
    assert runs - runs_before < 400, "some of them together"


def request(shape: tuple[int, ...], dtype: str = "FP32", name: str = "input") -> grpc_client.InferInput:
    tensor = grpc_client.InferInput(name, list(shape), dtype)
    tensor.set_data_from_numpy(np.zeros(shape, {"FP32": np.float32, "UINT8": np.uint8}[dtype]))
    return tensor


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (request((1, 28, 28, 1)), r"shape"),
        (request((1, 784)), r"shape"),
        (request((1, 1, 28, 28), dtype="UINT8"), "data-type"),
        (request((1, 1, 28, 28), name="image"), "image"),
        (request((17, 1, 28, 28)), "batch-size must be <= 16"),
    ],
    ids=["shape", "rank", "type", "name", "batch of 17"],
)
def test_a_wrong_request_is_refused_and_the_server_goes_on(
    triton: Triton, model: ServedModel, pixels: Pixels, expected: Logits, wrong: grpc_client.InferInput, reason: str
) -> None:
    client = grpc_client.InferenceServerClient(triton.endpoint)
    with pytest.raises(InferenceServerException, match=reason):
        client.infer(MODEL, [wrong], client_timeout=10)
    client.close()
    assert np.allclose(model.infer(pixels[:1]), expected[:1], atol=1e-4), "others are still served"


def test_an_unknown_model_is_named(triton: Triton, pixels: Pixels) -> None:
    with ServedModel(triton.endpoint, "other") as other:
        with pytest.raises(ServerError, match=f"other at {triton.endpoint}: .*unknown model"):
            other.infer(pixels[:1])
        with pytest.raises(ServerError, match="other"):
            other.infer_concurrently([pixels[:1]] * 20, 4)
        with pytest.raises(ServerError, match="is not ready after 0 s: see Triton's log"):
            other.wait_ready(0.1)


def test_the_served_version_and_the_metrics_can_be_asked_for(triton: Triton, model: ServedModel) -> None:
    assert model.version() == 1, "the published one"
    with urllib.request.urlopen(f"{triton.metrics}/metrics", timeout=10) as response:
        assert f'model="{MODEL}"' in response.read().decode(), "Prometheus can read them"


def test_a_request_that_takes_too_long_is_an_error(triton: Triton, pixels: Pixels) -> None:
    with ServedModel(triton.endpoint, MODEL, timeout=1e-4) as hasty, pytest.raises(ServerError, match="Deadline"):
        hasty.infer(pixels[:1])


def test_the_clients_loop_ends_with_its_requests(model: ServedModel, pixels: Pixels) -> None:
    model.infer_concurrently([pixels[:1]] * 4, 2)
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


def test_sigterm_ends_triton_and_its_backends(exported_storage: Storage, tmp_path: Path) -> None:
    with running_triton(exported_storage.root, tmp_path / "log") as server:
        family = server.family()
        assert len(family) > 1, "each instance is a process of its own"
        os.kill(server.process.pid, signal.SIGTERM)
        assert gone(family, patience=30) == [], "no stub stays"


def launched(storage: Storage, triton: Path = TRITON) -> str:
    """The refusal of a launch that must not get as far as becoming tritonserver."""
    return refusal(run_main(launch.main, "--storage", storage.root, "--triton", triton))


def test_a_damaged_model_is_not_served(exported_storage: Storage, copy_of: Copy) -> None:
    storage = copy_of(exported_storage)
    path = storage.models / MODEL / "1" / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert f"{path} is damaged (SHA-256 differs" in launched(storage), "which file"
    path.unlink()
    assert f"{path} is missing" in launched(storage), "which file"


def test_without_a_published_version_nothing_is_served(tmp_path: Path) -> None:
    message = launched(Storage(tmp_path))
    assert "has no published version: run the export stage" in message, "what to do"


def test_without_tritons_parts_the_launcher_says_how_to_get_them(exported_storage: Storage, tmp_path: Path) -> None:
    assert f"{tmp_path}/bin/tritonserver is missing: run `make setup`" in launched(exported_storage, tmp_path), "how"
