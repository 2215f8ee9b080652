"""Our backend inside the real tritonserver, and the launcher in front of it."""

import asyncio
import json
import os
import shutil
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2_grpc

from mnist import data, onnx_model
from mnist.errors import ServerError
from mnist.inference import Logits, Pixels, ServedModel
from mnist.storage import Storage
from serving import launch
from tests.bad_input.server import Request, Tensor
from tests.support import gone, refusal, run_main
from tests.workloads.triton import MODEL, Triton, running_triton


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


def test_a_storage_with_blanks_and_a_shells_characters_in_its_path_is_served(
    exported_storage: Storage, tmp_path: Path, pixels: Pixels, expected: Logits
) -> None:
    root = tmp_path / "my $(touch ran); storage é"
    shutil.copytree(exported_storage.root, root, symlinks=True)
    with running_triton(root, tmp_path / "log") as server, ServedModel(server.endpoint, MODEL) as served:
        assert np.allclose(served.infer(pixels[:2]), expected[:2], atol=1e-4), "as from any other path"
    assert not Path("ran").exists() and not (tmp_path / "ran").exists(), "no part of it is run"


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


def counted(triton: Triton) -> tuple[int, int]:
    """The images that were computed, and in how many batches."""
    with urllib.request.urlopen(f"{triton.http}/v2/models/{MODEL}/stats", timeout=10) as response:
        stats = json.load(response)["model_stats"][0]
    return stats["inference_count"], stats["execution_count"]


def test_requests_are_brought_together_in_batches(triton: Triton, model: ServedModel, pixels: Pixels) -> None:
    images_before, runs_before = counted(triton)
    model.infer_concurrently([pixels[:1]] * 400, 16)
    images, runs = counted(triton)
    assert images - images_before == 400, "all were answered"
    assert runs - runs_before < 400, "some of them together"


@pytest.mark.parametrize(
    ("count", "value", "reason"),
    [(1, np.nan, "holds NaN or infinity"), (2**32, 0.5, "has the shape [1, 28, 28]")],
    ids=["with NaN", "with a shape that Triton lets through"],
)
def test_a_bad_request_in_a_batch_fails_alone(
    triton: Triton, pixels: Pixels, expected: Logits, count: int, value: float, reason: str
) -> None:
    good = [Request([Tensor(content=image.tobytes())]) for image in pixels]
    bad = Request([Tensor((count, 1, 28, 28), np.full((1, 28, 28), value, np.float32).tobytes())])
    _, runs_before = counted(triton)
    with grpc.insecure_channel(triton.endpoint) as channel:
        ask = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer.future
        pairs = [(ask(one.message()), ask(bad.message())) for one in good]
        logits = [np.frombuffer(answer.result().raw_output_contents[0], np.float32) for answer, _ in pairs]
        reasons = {fault.exception().details() for _, fault in pairs}
    _, runs = counted(triton)
    assert np.allclose(logits, expected, atol=1e-4), "those beside it get their own answers"
    assert len(reasons) == 1 and reason in reasons.pop(), "each bad one learns why"
    assert runs - runs_before < len(good), "some of them were together"


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


def test_without_tritons_parts_the_launcher_says_how_to_get_them(exported_storage: Storage, tmp_path: Path) -> None:
    message = refusal(run_main(launch.main, "--storage", exported_storage.root, "--triton", tmp_path))
    assert f"{tmp_path}/bin/tritonserver is missing: run `make setup`" in message, "how"
