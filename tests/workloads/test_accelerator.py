"""Training as on a GPU: bfloat16 and channels last; on CPUs here, and on a GPU where there is one."""

from threading import Event

import numpy as np
import pytest
import torch

import train
from mnist import accelerator
from mnist.accelerator import Compute, compute
from mnist.checkpoint import TrainConfig
from mnist.compact import CompactResNet18
from mnist.data import load
from mnist.errors import AcceleratorError
from mnist.model import build_model
from mnist.repository import ServingConfig, render_config
from mnist.storage import Storage
from mnist.training import Tensors, Trainer, evaluate, predict
from tests.support import refusal, run_main

AS_ON_A_GPU = Compute(dtype=torch.bfloat16, channels_last=True)
CONFIG = TrainConfig(
    dataset="custom",
    data_digest="",
    test_digest="",
    epochs=4,
    batch_size=32,
    learning_rate=0.002,
    seed=1,
    target_accuracy=0.0,
    threads=2,
    code="",
    torch_version="",
)


def trained(data: Tensors, hardware: Compute) -> Trainer:
    trainer = Trainer(CONFIG, data, compute=hardware)
    trainer.run(lambda _: None, _note_epoch, Event())
    return trainer


def _note_epoch(trainer: Trainer) -> bool:
    trainer.epochs.append({})
    return False


@pytest.fixture(scope="module")
def data(small_storage: Storage) -> Tensors:
    return Tensors.of(*load(small_storage.data, "train"))


@pytest.fixture(scope="module")
def unseen(small_storage: Storage) -> Tensors:
    return Tensors.of(*load(small_storage.data, "t10k"))


def test_in_bfloat16_it_learns_as_well(data: Tensors, unseen: Tensors) -> None:
    plain, like_gpu = trained(data, Compute()), trained(data, AS_ON_A_GPU)
    assert like_gpu.history[0]["loss"] == pytest.approx(plain.history[0]["loss"], rel=0.05), "the same start"
    assert like_gpu.history[0]["loss"] != plain.history[0]["loss"], "in another precision"
    assert like_gpu.history[-1]["loss"] < 0.5 * like_gpu.history[0]["loss"], "it learns"
    _, expected = evaluate(plain.model, unseen)
    _, accuracy = evaluate(like_gpu.model, unseen)
    assert accuracy > expected - 0.15, f"{accuracy} where float32 has {expected}: 100 images, 40 steps"


def test_its_weights_are_float32_in_torchvisions_shapes(data: Tensors) -> None:
    weights = trained(data, AS_ON_A_GPU).checkpoint(complete=True).model
    expected = build_model().state_dict()
    assert {name: value.shape for name, value in weights.items()} == {n: v.shape for n, v in expected.items()}
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}, "64: batch norm's counters"
    assert all(value.device.type == "cpu" for value in weights.values()), "any machine can read them"


def test_channels_last_is_the_same_function(unseen: Tensors) -> None:
    torch.manual_seed(0)
    model = build_model()
    usual, like_gpu = CompactResNet18(model), CompactResNet18(model, channels_last=True)
    assert np.allclose(predict(usual, unseen.images), predict(like_gpu, unseen.images), atol=1e-5), (
        "another layout only"
    )


def test_without_a_gpu_it_says_so(small_storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = refusal(run_main(train.main, "--storage", small_storage.root, "--accelerator", "nvidia"))
    assert said.startswith("accelerator is nvidia, "), "what was asked for"
    assert said.endswith("install NVIDIA's driver, or set accelerator to none"), "and what to do"


def test_a_worker_without_a_gpu_of_its_own_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(AcceleratorError, match=r"worker 3 of this machine .* there are 2, set trainWorkers to that"):
        compute("nvidia", local_rank=2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU and PyTorch with CUDA")
def test_on_a_gpu_it_learns(data: Tensors, unseen: Tensors) -> None:
    hardware = compute("nvidia")
    assert hardware.backend == "nccl", "for several workers"
    trainer = trained(data, hardware)
    assert next(trainer.model.parameters()).is_cuda, "on the GPU"
    assert evaluate(trainer.model, unseen)[1] > 0.6, "100 images, 40 steps"


def test_triton_is_told_to_serve_on_the_gpu() -> None:
    config = render_config("m", None, ServingConfig(cpus=8, gpu=True))
    assert "instance_group [ { count: 1 kind: KIND_GPU } ]" in config, "one copy of the model"
    assert "KIND_CPU" in render_config("m", None, ServingConfig(cpus=8)), "and on CPUs without"


def test_the_accelerators_are_the_settings() -> None:
    from pipeline.settings import Settings

    assert Settings.model_fields["accelerator"].annotation.__args__ == accelerator.ACCELERATORS  # type: ignore[union-attr]
