"""Export the best checkpoint to ONNX and publish it for Triton if it is better than what is served.

    python workloads/export.py --storage storage/local

Writes models/<name>/<version>/{model.onnx, metadata.json, predictions.npy}, which appears whole or not at all and is
never changed, and models/<name>/config.pbtxt. A model that is not better is not published: the served one stays.
"""

import argparse
import io
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch

from mnist import __version__, cli, onnx_model, training
from mnist.accelerator import ACCELERATORS
from mnist.checkpoint import Checkpoint, load
from mnist.cli import StageLog
from mnist.cpus import available_cpus
from mnist.data import Labels, read_manifest
from mnist.data import load as load_data
from mnist.errors import CheckpointError, GateError, ModelError
from mnist.folding import FoldedModel
from mnist.model import ServedModel, build_model, to_pixels
from mnist.object_store import ObjectStore
from mnist.repository import MODEL_FILE, PREDICTIONS_FILE, Metadata, ModelRepository, ServingConfig
from mnist.storage import Storage, make_directory, require_space, write_atomic

NEEDED_BYTES = 100 << 20  # the model is 17 MB; quantising it takes three more of its size
PRECISIONS = ("fp32", "int8")
MAX_ACCURACY_LOSS = 0.001  # a tenth of a point, between two precisions of one model


def parser() -> argparse.ArgumentParser:
    options = cli.parser("export", (__doc__ or "").splitlines()[0])
    options.add_argument("--model-name", default="resnet18_mnist")
    options.add_argument("--min-accuracy", type=float, default=0.97, help="of a first version, 0..1")
    options.add_argument(
        "--precision", choices=PRECISIONS, default="fp32", help="of the weights and sums (%(default)s)"
    )
    options.add_argument("--keep-versions", type=int, default=5)
    options.add_argument("--served-version", type=int, default=0, help="serve this published version; 0: the newest")
    options.add_argument("--serving-cpus", type=int, default=0, help="CPUs Triton may use; 0: as many as here")
    options.add_argument("--serve-on", choices=ACCELERATORS, default="none", help="nvidia: on a GPU (%(default)s)")
    options.add_argument("--model-repository", default="", help="also there, s3://bucket/path; Triton reads it")
    options.add_argument("--queue-delay-us", type=int, default=0, help="how long a request waits for company")
    return options


def export(options: argparse.Namespace, storage: Storage, log: StageLog) -> dict[str, Any]:
    """The stage; returns what ends its log: what is served, the candidate, and why it was published or not.

    Raises:
        CheckpointError: there is none that fits the data.
        ModelError: the ONNX model disagrees with PyTorch, or `served_version` does not exist.
        StorageError: the storage, or the object store, cannot be written.
        GateError: a first version is below `min_accuracy`, or int8 does not pay.
    """
    repository = ModelRepository(storage.models, options.model_name)
    serving = ServingConfig(
        cpus=options.serving_cpus or available_cpus(),
        gpu=options.serve_on == "nvidia",
        queue_delay_us=options.queue_delay_us,
    )
    store = ObjectStore(options.model_repository) if options.model_repository else None
    if options.served_version and options.served_version not in repository.versions():
        kept = ", ".join(map(str, repository.versions())) or "none"
        raise ModelError(
            f"servedVersion {options.served_version} does not exist; published versions: {kept}, or 0 for the newest"
        )
    require_space(make_directory(repository.directory), NEEDED_BYTES)
    staging = repository.staging()
    try:
        candidate = _candidate(storage, staging, options.precision, log)
        verdict = _gate(repository, candidate, options.min_accuracy)
        log.say(verdict.message)
        if verdict.publish:
            # The configuration first: with it there, the renaming alone makes the version served.
            repository.serve(options.served_version or None, serving)
            version = repository.publish(staging, candidate)
            log.say(f"published version {version} ({candidate.bytes / 1e6:.1f} MB)")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    repository.serve(options.served_version or None, serving)
    removed = repository.prune(options.keep_versions)
    if removed:
        log.say(f"removed version {', '.join(map(str, removed))} (keepVersions {options.keep_versions})")
    served = repository.served()
    assert served is not None, "the gate fails where nothing is served"
    if store is not None:
        sent = ", ".join(map(str, store.mirror(repository))) or "none"
        log.say(f"{store.url} has the same versions, uploaded: {sent}")
    log.say(f"{repository.name} version {served} is served, accuracy {repository.metadata(served).accuracy:.4f}")
    return {
        "published": verdict.publish,
        "served_version": served,
        "candidate": vars(candidate),
        "reason": verdict.message,
    }


class Verdict(NamedTuple):
    """Whether to publish a candidate, and why."""

    publish: bool
    message: str


def _candidate(storage: Storage, staging: Path, precision: str, log: StageLog) -> Metadata:
    """Export the best checkpoint into `staging`, checked against PyTorch on every test image."""
    checkpoint = _checkpoint(storage)
    model = build_model()
    model.load_state_dict(checkpoint.model)
    torch.set_num_threads(available_cpus())
    images, labels = load_data(storage.data, "t10k")
    pixels = to_pixels(images)
    reference = training.predict(ServedModel(model).eval(), pixels)
    path = staging / MODEL_FILE
    info = onnx_model.export_onnx(FoldedModel(model), path)
    log.say(f"exported {info.nodes} nodes, opset {info.opset}, IR {info.ir_version}, {info.bytes / 1e6:.1f} MB")
    logits = onnx_model.predict(onnx_model.session(path, available_cpus()), pixels.numpy())
    parity = onnx_model.compare(logits, reference)
    if parity["max_absolute_difference"] > onnx_model.MAX_DIFFERENCE or parity["equal_predictions"] < 1:
        raise ModelError(f"the exported model disagrees with PyTorch: {parity}; it is not published")
    log.say(
        f"agrees with PyTorch on all {len(labels):,} test images "
        f"(largest difference of logits {parity['max_absolute_difference']:.1e})"
    )
    speed: dict[str, float] = {}
    if precision == "int8":
        info, logits, speed = _quantised(storage, path, logits, labels, log)
        parity = onnx_model.compare(logits, reference)
    predictions = io.BytesIO()
    np.save(predictions, reference.argmax(1).astype(np.uint8))
    write_atomic(staging / PREDICTIONS_FILE, predictions.getvalue())
    return Metadata(
        export_date=datetime.now(UTC).isoformat(timespec="seconds"),
        accuracy=_accuracy(logits, labels),
        source_model=os.path.relpath(storage.best_model.resolve(), storage.root),
        dataset=checkpoint.config.dataset,
        test_digest=checkpoint.config.test_digest,
        test_images=len(labels),
        precision=precision,
        opset=info.opset,
        ir_version=info.ir_version,
        sha256=info.sha256,
        bytes=info.bytes,
        parity=parity,
        speed=speed,
        versions=_versions(),
    )


def _checkpoint(storage: Storage) -> Checkpoint:
    source = storage.best_model
    checkpoint = load(source)
    manifest = read_manifest(storage.data)
    if checkpoint.config.test_digest != manifest.test_digest:
        raise CheckpointError(
            f"{source} was trained with other data ({checkpoint.config.dataset}) "
            f"than are there now ({manifest.dataset}): train again"
        )
    return checkpoint


def _quantised(
    storage: Storage, path: Path, logits: onnx_model.Logits, labels: Labels, log: StageLog
) -> tuple[onnx_model.OnnxInfo, onnx_model.Logits, dict[str, float]]:
    """Put the int8 model in the fp32 model's place, unless it is worse or not faster."""
    from mnist import quantization  # takes a second to import

    fp32 = path.rename(path.with_suffix(".fp32.onnx"))
    images, _ = load_data(storage.data, "train")
    info = quantization.quantise(fp32, path, to_pixels(images[: quantization.CALIBRATION_IMAGES]).numpy())
    quantised = onnx_model.predict(
        onnx_model.session(path, available_cpus()), to_pixels(load_data(storage.data, "t10k")[0]).numpy()
    )
    speed = quantization.compare_speed(fp32, path)
    fp32.unlink()
    before, after = _accuracy(logits, labels), _accuracy(quantised, labels)
    figures = f"accuracy {after:.4f} instead of {before:.4f}, {speed}"
    if before - after > MAX_ACCURACY_LOSS or not speed.is_faster:
        raise GateError(f"int8 does not pay here: {figures}; not published: set precision to fp32")
    log.say(f"int8: {figures}, {info.bytes / 1e6:.1f} MB")
    return info, quantised, {f"{name}_ms_batch_{batch}": round(ms, 4) for name, batch, ms in speed.rows()}


def _accuracy(logits: onnx_model.Logits, labels: Labels) -> float:
    return float((logits.argmax(1) == labels).mean())


def _versions() -> dict[str, str]:
    return {
        "torch": str(torch.__version__),
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "mnist-triton": __version__,
    }


def _gate(repository: ModelRepository, candidate: Metadata, min_accuracy: float) -> Verdict:
    """Publish what beats the served version on the same test data; a first one must reach `min_accuracy`."""
    for version in repository.versions():
        if repository.metadata(version).sha256 == candidate.sha256:
            return Verdict(publish=False, message=f"this very model is published already, as version {version}")
    served = repository.served()
    present = repository.metadata(served) if served is not None else None
    if present is not None and present.test_digest == candidate.test_digest:
        figures = f"accuracy {candidate.accuracy:.4f}, the served version {served} has {present.accuracy:.4f}"
        if candidate.accuracy > present.accuracy:
            return Verdict(True, f"better: {figures}")
        if candidate.precision != present.precision and candidate.accuracy >= present.accuracy - MAX_ACCURACY_LOSS:
            return Verdict(True, f"{candidate.precision} instead of {present.precision}, as good: {figures}")
        return Verdict(False, f"not better: {figures} and stays")
    if candidate.accuracy < min_accuracy:
        raise GateError(
            f"accuracy {candidate.accuracy:.4f} is below minAccuracy {min_accuracy}: not published; "
            "train longer (epochs) or lower minAccuracy"
        )
    first = f"version {served} was measured on other test data ({present.dataset})" if present else "a first version"
    return Verdict(True, f"accuracy {candidate.accuracy:.4f} reaches minAccuracy {min_accuracy}; {first}")


def main(argv: list[str] | None = None) -> int:
    return cli.run("export", parser(), argv, export)


if __name__ == "__main__":
    sys.exit(main())
