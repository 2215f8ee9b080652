"""The export's gate: what is published, what is not, and that nothing half-written is ever served."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

import export
from mnist import data, onnx_model
from mnist.checkpoint import load, save
from mnist.cli import last_finished
from mnist.errors import ModelError
from mnist.model import ServedModel, build_model
from mnist.repository import ModelRepository
from mnist.storage import Storage, replace_link
from tests.support import ROOT, refusal, run_main, small_disk, succeeded

Copy = Callable[[Storage], Storage]
MODEL = "resnet18_mnist"


def repository(storage: Storage) -> ModelRepository:
    return ModelRepository(storage.models, MODEL)


def worsen(storage: Storage, scale: float) -> None:
    """Make the best checkpoint one that knows less: the scores of digits 5 to 9 are scaled down."""
    checkpoint = load(storage.best_model)
    weights = {name: tensor.clone() for name, tensor in checkpoint.model.items()}
    weights["fc.weight"][5:] *= scale
    weights["fc.bias"][5:] -= 5 * (1 - scale)
    path = storage.checkpoints / "worse" / "checkpoint.pth"
    save(replace(checkpoint, model=weights), path)
    replace_link(storage.best_model, path)


def run_export(storage: Storage, *options: object) -> str:
    return succeeded(run_main(export.main, "--storage", storage.root, "--min-accuracy", 0.1, *options))


def test_the_first_model_is_published_as_version_1(exported_storage: Storage) -> None:
    published = repository(exported_storage)
    assert published.versions() == [1], "one version"
    assert sorted(path.name for path in published.version_directory(1).iterdir()) == [
        "metadata.json",
        "model.onnx",
        "predictions.npy",
    ], "whole, without rests of the export"
    assert not list(published.directory.glob(".staging-*")), "nothing half-written stays"


def test_the_metadata_have_what_the_contract_names(exported_storage: Storage) -> None:
    path = repository(exported_storage).version_directory(1)
    metadata = json.loads((path / "metadata.json").read_text(encoding="utf-8"))
    named = {"export_date", "accuracy", "source_model", "dataset", "precision", "opset", "ir_version", "sha256"}
    assert named <= set(metadata), "the contract's fields"
    assert {"torch", "onnx", "mnist-triton"} <= set(metadata["versions"]), "the versions"
    assert (metadata["dataset"], metadata["precision"]) == ("custom", "fp32"), "what it was trained on"
    assert (exported_storage.root / metadata["source_model"]).is_file(), "where it came from, below the storage"
    assert metadata["accuracy"] == load(exported_storage.best_model).accuracy, "ONNX Runtime's equals PyTorch's"
    assert metadata["parity"]["equal_predictions"] == 1, "every prediction is equal"
    assert metadata["parity"]["max_absolute_difference"] < 1e-3, "and the logits nearly so"


def test_the_oldest_supported_triton_can_read_the_model(exported_storage: Storage) -> None:
    graph = onnx.load(repository(exported_storage).version_directory(1) / "model.onnx")
    assert graph.opset_import[0].version == 17, "ONNX Runtime 1.14 reads up to 18"
    assert graph.ir_version == 8, "and up to 8"
    batch, *shape = [dim.dim_param or dim.dim_value for dim in graph.graph.input[0].type.tensor_type.shape.dim]
    assert isinstance(batch, str) and shape == [1, 28, 28], "any batch of 1 x 28 x 28"


def test_normalisation_is_inside_the_model(exported_storage: Storage) -> None:
    images, _ = data.load(exported_storage.data, "t10k")
    pixels = images[:8, None].astype(np.float32) / np.float32(255)
    session = onnx_model.session(repository(exported_storage).version_directory(1) / "model.onnx")
    model = build_model()
    model.load_state_dict(load(exported_storage.best_model).model)
    with torch.inference_mode():
        expected = model.eval()(torch.from_numpy((pixels - 0.1307) / 0.3081).float()).numpy()
    assert np.allclose(onnx_model.predict(session, pixels), expected, atol=1e-3), "clients send plain pixels"


def test_the_same_model_is_not_published_twice(exported_storage: Storage, copy_of: Copy) -> None:
    storage = copy_of(exported_storage)
    said = run_export(storage)
    assert "this very model is published already, as version 1" in said, "says why not"
    assert repository(storage).versions() == [1], "no second version"
    summary = last_finished(storage, "export")
    assert summary is not None and summary["published"] is False, "and programs know, too"


def test_only_a_better_model_becomes_the_next_version(trained_storage: Storage, copy_of: Copy) -> None:
    storage = copy_of(trained_storage)
    best = storage.best_model.resolve()
    worsen(storage, 0.0)
    run_export(storage)
    replace_link(storage.best_model, best)
    said = run_export(storage)
    first, second = (repository(storage).metadata(version).accuracy for version in (1, 2))
    assert f"better: accuracy {second:.4f}, the served version 1 has {first:.4f}" in said, "both figures"
    assert repository(storage).served() == 2, "the better one is served"
    worsen(storage, 0.5)
    said = run_export(storage)
    assert "not better: accuracy" in said, "the candidate's figure"
    assert f"the served version 2 has {second:.4f} and stays" in said, "the served one's figure"
    assert repository(storage).versions() == [1, 2], "the worse one is not published"
    run_export(storage, "--served-version", 1)
    assert repository(storage).served() == 1, "one can go back"
    assert "versions: [ 1 ]" in repository(storage).config_path.read_text(encoding="utf-8"), "as Triton reads it"
    replace_link(storage.best_model, best)
    run_export(storage)
    assert repository(storage).served() == 2, "and forth"
    said = run_export(storage, "--keep-versions", 1)
    assert "removed version 1 (keepVersions 1)" in said, "says what it removes"


def test_a_model_measured_on_other_data_is_not_compared(exported_storage: Storage, copy_of: Copy) -> None:
    """A served version with a better figure, but of other test data."""
    storage = copy_of(exported_storage)
    path = repository(storage).version_directory(1) / "metadata.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    other = {**fields, "test_digest": "0" * 64, "dataset": "digits", "accuracy": 1.0, "sha256": "0" * 64}
    path.write_text(json.dumps(other), encoding="utf-8")
    message = refusal(run_main(export.main, "--storage", storage.root, "--min-accuracy", 1))
    assert "is below minAccuracy 1.0: not published" in message, "then the minimum decides"
    said = run_export(storage)
    assert "version 1 was measured on other test data (digits)" in said, "it is said that nothing was compared"
    assert repository(storage).served() == 2, "what reaches the minimum is published"


def test_a_first_model_below_the_minimum_is_not_published(trained_storage: Storage, copy_of: Copy) -> None:
    storage = copy_of(trained_storage)
    message = refusal(run_main(export.main, "--storage", storage.root, "--min-accuracy", 1.01))
    assert "is below minAccuracy 1.01: not published" in message, "both figures and the consequence"
    assert repository(storage).versions() == [], "nothing is served"
    assert not list(repository(storage).directory.glob(".staging-*")), "nothing half-written stays"


def test_an_export_killed_before_publishing_leaves_no_version(trained_storage: Storage, copy_of: Copy) -> None:
    storage = copy_of(trained_storage)
    code = (
        "import os, signal, sys; sys.path.insert(0, 'workloads'); import export\n"
        "from mnist.repository import ModelRepository\n"
        f"ModelRepository.publish = lambda *_: os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
        "sys.exit(export.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "--storage", str(storage.root), "--min-accuracy", "0.1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, f"killed with the files written: {done.stderr}"
    assert repository(storage).versions() == [], "it is not served"
    assert list(repository(storage).directory.glob(".staging-*/model.onnx")), "though its files were there"
    run_export(storage)
    assert repository(storage).versions() == [1], "the next export publishes"
    assert not list(repository(storage).directory.glob(".staging-*")), "and clears away the rests"


def test_damaged_metadata_of_a_version_are_named(exported_storage: Storage, copy_of: Copy) -> None:
    storage = copy_of(exported_storage)
    path = repository(storage).version_directory(1) / "metadata.json"
    path.write_text("{", encoding="utf-8")
    assert f"{path} is missing or damaged" in refusal(run_main(export.main, "--storage", storage.root)), "which file"


def test_a_full_disk_is_said_before_the_export(trained_storage: Storage, copy_of: Copy) -> None:
    storage = copy_of(trained_storage)
    with small_disk(storage.models, "8m"):
        message = refusal(run_main(export.main, "--storage", storage.root))
    assert "100 MiB are needed: free some space" in message, "what is lacking"


@pytest.mark.parametrize(("field", "value"), [("ir_version", 9), ("opset", 19), ("input", "pixels")])
def test_a_model_triton_cannot_serve_is_refused(exported_storage: Storage, field: str, value: object) -> None:
    graph = onnx.load(repository(exported_storage).version_directory(1) / "model.onnx")
    if field == "ir_version":
        graph.ir_version = 9
    elif field == "opset":
        graph.opset_import[0].version = 19
    else:
        for node in graph.graph.node:
            node.input[:] = [str(value) if name == "input" else name for name in node.input]
        graph.graph.input[0].name = str(value)
    with pytest.raises(ModelError, match=str(value)):
        onnx_model.check(graph)


def test_a_file_that_is_no_model_is_refused(small_storage: Storage) -> None:
    path = small_storage.data / "dataset.json"
    with pytest.raises(ModelError, match=f"{path} cannot be loaded by ONNX Runtime"):
        onnx_model.session(path)


def test_comparing_finds_a_difference() -> None:
    ours = np.eye(10, dtype=np.float32)
    found = onnx_model.compare(ours, np.roll(ours, 1, axis=1))
    assert found == {"max_absolute_difference": 1.0, "equal_predictions": 0.0}, "both measures see it"


def test_the_served_model_normalises_as_training_does() -> None:
    served = ServedModel(torch.nn.Identity())
    assert served(torch.tensor([0.1307])).item() == 0, "the mean becomes zero"
    assert served(torch.tensor([0.1307 + 0.3081])).item() == pytest.approx(1), "the deviation becomes one"
