"""Checkpoints: written whole or not at all, carrying their own configuration, read without executing anything."""

import io
import pickle
import zipfile
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mnist.errors import CheckpointError, PipelineError
from mnist.model import MODEL_NAME, build_model
from mnist.records import record
from mnist.storage import CHECKPOINT, Storage, explained, replace_link, write_atomic

FORMAT = 2


@dataclass(frozen=True)
class TrainConfig:
    """All that decides the trained weights. Equal configurations give equal weights on equal machines."""

    dataset: str
    data_digest: str  # mnist.data.Manifest.digest
    test_digest: str
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    target_accuracy: float
    threads: int  # sums run in another order with another number of threads
    code: str  # SHA-256 of the training code
    torch_version: str
    workers: int = 1  # batch norm sees each worker's share of a batch
    accelerator: str = "none"  # a GPU sums in another order, and in bfloat16


@dataclass
class Checkpoint:
    """A training's state after `step` optimizer steps."""

    config: TrainConfig
    step: int
    model: dict[str, Tensor]  # torchvision's names and shapes
    optimizer: dict[str, Any] | None = None  # None once complete: nothing is left to resume
    complete: bool = False
    accuracy: float = 0.0  # on the test data, in 0..1; 0 until complete
    seconds: float = 0.0  # of training so far, over all its attempts
    history: list[dict[str, float]] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)
    network: dict[str, int] = field(default_factory=dict)
    format: int = FORMAT
    architecture: str = MODEL_NAME


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write atomically: after a crash or on a full disk, the previous checkpoint is still there.

    Raises:
        StorageError: it cannot be written.
    """
    buffer = io.BytesIO()
    content = {item.name: getattr(checkpoint, item.name) for item in fields(checkpoint)}
    torch.save({**content, "config": asdict(checkpoint.config)}, buffer)
    write_atomic(path, buffer.getvalue())


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; pickled code in it is refused, never run (weights_only).

    Raises:
        CheckpointError: missing, truncated, not a checkpoint of this project, or of another architecture.
    """
    try:
        with explained(path, "read"):
            _check_archive(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or "format" not in content:
            raise ValueError("another program's")
        if content["format"] != FORMAT:
            raise CheckpointError(f"{path} has checkpoint format {content['format']}, expected {FORMAT}: train again")
        checkpoint = record(Checkpoint, {**content, "config": record(TrainConfig, content["config"])})
        if not 0 <= checkpoint.accuracy <= 1:
            raise ValueError(f"accuracy {checkpoint.accuracy}")
        _check_weights(checkpoint.model, path)
    except PipelineError:
        raise
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} holds more than weights or is damaged; it was not executed: train again"
        ) from None
    except Exception as error:  # damaged bytes make torch.load raise almost anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is damaged or not a checkpoint ({reason}): remove it and train again") from None
    return checkpoint


def _check_archive(path: Path) -> None:
    """torch.load does not look at the archive's check sums: damaged weights would pass for weights."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a directory, expected a checkpoint: move it away and train again")
    if not path.is_file():
        target = f" (links to {path.readlink()})" if path.is_symlink() else ""
        raise CheckpointError(f"{path} is missing{target}: run the train stage")
    with path.open("rb") as file:
        file.read(1)  # is_zipfile takes what cannot be read for no archive
        if not zipfile.is_zipfile(file):
            raise CheckpointError(
                f"{path} is damaged or not a checkpoint; it was not executed: remove it and train again"
            )
        with zipfile.ZipFile(file) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                # torch.save compresses nothing; a few kilobytes could unpack to more than the memory holds.
                raise CheckpointError(f"{path} is compressed, not a checkpoint of this project: train again")
            wrong = archive.testzip()
    if wrong is not None:
        raise CheckpointError(f"{path} is damaged (wrong check sum in {wrong}): remove it and train again")


def _check_weights(weights: dict[str, Tensor], path: Path) -> None:
    expected = {name: (tensor.shape, tensor.dtype) for name, tensor in build_model().state_dict().items()}
    found = {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()}
    if found != expected:
        wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
        raise CheckpointError(f"{path} is not a {MODEL_NAME} for 1x28x28 images ({wrong[0]} differs): train again")
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path} holds NaN or infinity ({name}): train again with a lower learningRate")


def resumable(storage: Storage, config: TrainConfig) -> tuple[Path, Checkpoint] | None:
    """The newest unfinished checkpoint of exactly this configuration, if there is one."""
    candidates = [path for path in storage.checkpoints.glob(f"*/{CHECKPOINT}") if not path.parent.is_symlink()]
    for path in sorted(candidates, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            checkpoint = load(path)
        except CheckpointError:
            continue  # a damaged one of an earlier run is no reason not to train
        if not checkpoint.complete and checkpoint.config == config:
            return path, checkpoint
    return None


def link_best(storage: Storage, path: Path, checkpoint: Checkpoint) -> float | None:
    """Point best_model.pth at `path` unless the present one is better on the same test data.

    Returns:
        The present best's accuracy if that one stays, else None.
    """
    try:
        best = load(storage.best_model)
        comparable = best.config.test_digest == checkpoint.config.test_digest
    except CheckpointError:
        comparable = False
    if comparable and best.accuracy > checkpoint.accuracy:
        return best.accuracy
    replace_link(storage.best_model, path)
    return None
