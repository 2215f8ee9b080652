"""The exported model computes what the trained one does, in less; and in 8-bit integers where that pays."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import client
import export
from mnist import data, quantization
from mnist.checkpoint import load
from mnist.folding import FoldedModel
from mnist.model import ServedModel, build_model, to_pixels
from mnist.onnx_model import OnnxInfo
from mnist.quantization import Speed
from mnist.repository import ModelRepository
from mnist.storage import Storage
from tests.support import refusal, run_main, succeeded
from tests.workloads.triton import MODEL, running_triton

Copy = Callable[[Storage], Storage]


def test_the_folded_model_has_the_logits_of_the_trained_one(exported_storage: Storage) -> None:
    images, _ = data.load(exported_storage.data, "t10k")
    model = build_model()
    model.load_state_dict(load(exported_storage.best_model).model)
    with torch.inference_mode():
        expected, got = ServedModel(model).eval()(to_pixels(images)), FoldedModel(model)(to_pixels(images))
    assert torch.allclose(got, expected, atol=1e-4), "the same function, but for rounding"


def test_the_dead_taps_stay_away_from_the_exported_file(exported_storage: Storage) -> None:
    path = exported_storage.models / MODEL / "1" / "model.onnx"
    assert path.stat().st_size <= 17e6, "a third of what torchvision's weights take"
    assert path.stat().st_size > 16e6, "all that counts is there"


@pytest.fixture
def int8_storage(exported_storage: Storage, copy_of: Copy) -> Storage:
    storage = copy_of(exported_storage)
    succeeded(run_main(export.main, "--storage", storage.root, "--precision", "int8", "--serving-cpus", 2))
    return storage


def test_an_int8_model_is_published_beside_the_fp32_one_and_served(int8_storage: Storage, tmp_path: Path) -> None:
    repository = ModelRepository(int8_storage.models, MODEL)
    fp32, int8 = repository.metadata(1), repository.metadata(2)
    assert (fp32.precision, int8.precision) == ("fp32", "int8"), "the metadata say which"
    assert int8.accuracy >= fp32.accuracy - 0.001, "within a tenth of a point"
    assert int8.bytes < fp32.bytes / 3, "a byte a weight"
    for batch in (1, 16):
        assert int8.speed[f"int8_ms_batch_{batch}"] < int8.speed[f"fp32_ms_batch_{batch}"], "faster, as it was measured"
    assert [path.name for path in repository.version_directory(2).glob("*.onnx")] == ["model.onnx"], "one model"
    with running_triton(int8_storage.root, tmp_path / "log") as triton:
        options = ("--storage", int8_storage.root, "--endpoint", triton.endpoint, "--min-accuracy", 0.3)
        succeeded(run_main(client.main, *options))
    results = json.loads((int8_storage.latest_results / "results.json").read_text(encoding="utf-8"))
    assert results["served_version"] == 2 and results["accuracy"] == int8.accuracy, "served as well as exported"


def test_fp32_comes_back_when_it_is_asked_for(int8_storage: Storage) -> None:
    said = succeeded(run_main(export.main, "--storage", int8_storage.root, "--precision", "fp32"))
    assert "this very model is published already, as version 1" in said, "it is kept; servedVersion goes back to it"


def test_an_int8_model_that_is_not_faster_is_refused(
    exported_storage: Storage, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = copy_of(exported_storage)
    slow = Speed(fp32={1: 1.0, 16: 9.0}, int8={1: 0.9, 16: 9.5})
    monkeypatch.setattr(quantization, "compare_speed", lambda *_: slow)
    message = refusal(run_main(export.main, "--storage", storage.root, "--precision", "int8"))
    assert "int8 does not pay here" in message and "9.50 instead of 9.00 ms at batch 16" in message, "why"
    assert "set precision to fp32" in message, "the way out"
    assert ModelRepository(storage.models, MODEL).versions() == [1], "nothing is published"


def test_an_int8_model_that_knows_less_is_refused(
    exported_storage: Storage, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calibrated on blank images, its ranges fit nothing else."""
    storage = copy_of(exported_storage)
    quantise = quantization.quantise

    def blindly(fp32: Path, int8: Path, pixels: quantization.Pixels) -> OnnxInfo:
        return quantise(fp32, int8, np.zeros_like(pixels))

    monkeypatch.setattr(quantization, "quantise", blindly)
    message = refusal(run_main(export.main, "--storage", storage.root, "--precision", "int8"))
    assert "int8 does not pay here: accuracy" in message, "both figures"
    assert ModelRepository(storage.models, MODEL).versions() == [1], "nothing is published"


def test_the_two_precisions_of_a_model_are_compared_in_turn(exported_storage: Storage) -> None:
    path = exported_storage.models / MODEL / "1" / "model.onnx"
    speed = quantization.compare_speed(path, path)
    assert all(0.5 < speed.int8[batch] / speed.fp32[batch] < 2 for batch in (1, 16)), "a model is as fast as itself"
