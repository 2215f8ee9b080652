"""Prove that the served model works: accuracy, agreement with PyTorch, latency and throughput, over gRPC.

    python workloads/client.py --storage storage/local --endpoint localhost:8001

Sends the whole test set, writes results/<run>/ and fails when a gate is not met.
"""

import argparse
import io
import itertools
import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist import __version__, cli
from mnist.cli import StageLog, last_finished
from mnist.cpus import available_cpus
from mnist.data import CLASSES, Images, Labels, load
from mnist.errors import GateError
from mnist.inference import Load, Pixels, ServedModel, confidences, measure_one_by_one
from mnist.repository import MAX_BATCH_SIZE, Metadata, ModelRepository
from mnist.rollback import last_good, roll_back
from mnist.storage import RESULTS_FILE, Storage, new_run, replace_link, write_atomic

SINGLES = 1000  # single-image requests, one after the other
CONCURRENCIES = (4, 16)
CONCURRENT_REQUESTS = 2000  # at most; at least 500, sending small test sets more than once
BATCHES_IN_FLIGHT = 4
UPSTREAM = ("prepare-data", "train", "export")


def parser() -> argparse.ArgumentParser:
    options = cli.parser("client", (__doc__ or "").splitlines()[0])
    options.add_argument("--endpoint", default="localhost:8001", help="gRPC host:port (%(default)s)")
    options.add_argument("--model-name", default="resnet18_mnist")
    options.add_argument("--min-accuracy", type=float, default=0.97, help="0..1")
    options.add_argument("--max-latency-ms", type=float, default=0.0, help="of p99 with single images; 0: any")
    options.add_argument(
        "--auto-rollback",
        choices=("true", "false"),
        default="false",
        help="go back to the last good version on failure",
    )
    options.add_argument("--deadline", type=float, default=120.0, help="seconds to wait for readiness")
    return options


def check(options: argparse.Namespace, storage: Storage, log: StageLog) -> dict[str, Any]:
    """The stage; returns what ends its log: run, accuracy (0..1), served version.

    Raises:
        ServerError: Triton does not answer.
        ModelError: the published version's files are damaged.
        GateError: accuracy or latency miss their gates; the results are written, and `auto_rollback` done, before.
    """
    images, labels = load(storage.data, "t10k")
    pixels = (images[:, None].astype(np.float32)) / np.float32(255)
    with ServedModel(options.endpoint, options.model_name) as model:
        waited = model.wait_ready(options.deadline)
        version = model.version()
        repository = ModelRepository(storage.models, options.model_name)
        published = (
            repository.metadata(version),
            repository.predictions(version),
        )  # damaged ones are said before the work
        log.say(f"{options.model_name} version {version} at {options.endpoint} was ready after {waited:.1f} s")
        loads = _measure(model, pixels, log)
    logits = loads["batches"].logits
    results = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "endpoint": options.endpoint,
        "model_name": options.model_name,
        "served_version": version,
        "waited_seconds": round(waited, 3),
        **_quality(*published, logits, labels),
        "samples": _samples(logits, labels),
        "load": {name: load.summary() for name, load in loads.items()},
        "gates": {"minAccuracy": options.min_accuracy, "maxLatencyMs": options.max_latency_ms},
        "environment": _environment(),
        "stages": {stage: last_finished(storage, stage) for stage in UPSTREAM},
    }
    failures = _failures(results, options)
    results["verdict"] = "; ".join(failures) or "passed"
    run = _write(storage, results, loads, images, labels)
    _tell(results, log)
    if failures:
        way_back = _way_back(options, storage, repository, version)
        raise GateError(
            f"{options.model_name} version {version}: {results['verdict']}; {way_back}; results: {run / RESULTS_FILE}"
        )
    _tell_what_is_newer(repository, version, log)
    return {"run": run.name, "accuracy": results["accuracy"], "served_version": version}


def _way_back(options: argparse.Namespace, storage: Storage, repository: ModelRepository, failed: int) -> str:
    """What to say of the last good version, having gone back to it if that is wanted."""
    good = last_good(storage, repository, failed, lambda results: not _failures(results, options))
    if good is None:
        return "no other kept version has passed this check"
    if options.auto_rollback == "true":
        with ServedModel(options.endpoint, options.model_name) as model:
            roll_back(repository, failed, good, model)
        return f"rolled back: version {good}, the last good one, is served again"
    return (
        f"the last good version is {good}: "
        f"`pulumi config set mnist:servedVersion {good}`, then `pulumi up`, goes back to it"
    )


def _tell_what_is_newer(repository: ModelRepository, version: int, log: StageLog) -> None:
    newest = repository.versions()[-1]
    if newest != version:
        log.warn(f"version {version} is served, version {newest} is newer (servedVersion, or rolled back)")


def _measure(model: ServedModel, pixels: Pixels, log: StageLog) -> dict[str, Load]:
    """The whole test set in batches, then single images, one by one and concurrently."""
    starts = range(0, len(pixels), MAX_BATCH_SIZE)
    batches = [pixels[start : start + MAX_BATCH_SIZE] for start in starts]
    log.say(f"sending {len(pixels):,} test images in batches of {MAX_BATCH_SIZE}", event="progress")
    loads = {"batches": model.infer_concurrently(batches, BATCHES_IN_FLIGHT)}
    singles = [pixels[index : index + 1] for index in range(len(pixels))]
    log.say(f"sending {min(SINGLES, len(singles)):,} single images, one by one", event="progress")
    loads["single"] = measure_one_by_one(singles[:SINGLES], model.infer)
    for concurrency in CONCURRENCIES:
        log.say(f"sending single images, {concurrency} at a time", event="progress")
        count = max(500, min(CONCURRENT_REQUESTS, len(singles)))
        requests = list(itertools.islice(itertools.cycle(singles), count))
        loads[f"concurrency_{concurrency}"] = model.infer_concurrently(requests, concurrency)
    return loads


def _quality(
    metadata: Metadata, reference: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32], labels: Labels
) -> dict[str, Any]:
    predictions = logits.argmax(1)
    comparable = reference.shape == predictions.shape
    return {
        "accuracy": float((predictions == labels).mean()),
        "test_images": len(labels),
        "dataset": metadata.dataset,
        "equal_to_pytorch": int((reference == predictions).sum()) if comparable else None,
        "confusion": confusion_matrix(labels, predictions).tolist(),
        "model": vars(metadata),
    }


def confusion_matrix(labels: Labels, predictions: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
    """How often each digit (row) was taken for each (column). scikit-learn's would make the image a third larger."""
    counts = np.zeros((CLASSES, CLASSES), np.int64)
    np.add.at(counts, (labels, predictions), 1)
    return counts


def _samples(logits: npt.NDArray[np.float32], labels: Labels) -> list[dict[str, Any]]:
    """The first test image of each digit (fewer where the data lack one)."""
    chosen = [int(np.flatnonzero(labels == digit)[0]) for digit in range(CLASSES) if (labels == digit).any()]
    probabilities = confidences(logits)
    return [
        {
            "index": index,
            "label": int(labels[index]),
            "prediction": int(logits[index].argmax()),
            "confidence": round(float(probabilities[index].max()), 4),
        }
        for index in chosen
    ]


def _environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": available_cpus(),
        "mnist-triton": __version__,
    }


def _failures(results: Mapping[str, Any], options: argparse.Namespace) -> list[str]:
    failures = []
    if results["accuracy"] < options.min_accuracy:
        failures.append(f"accuracy {results['accuracy']:.4f} is below minAccuracy {options.min_accuracy}")
    p99 = results["load"]["single"]["p99_ms"]
    if 0 < options.max_latency_ms < p99:
        failures.append(f"p99 latency {p99:.2f} ms is above maxLatencyMs {options.max_latency_ms:g}")
    return failures


def _write(storage: Storage, results: dict[str, Any], loads: dict[str, Load], images: Images, labels: Labels) -> Path:
    run = new_run(storage.results)
    results["run"] = run.name
    write_atomic(run / "samples.png", _picture(results["samples"], images))
    latencies = {name: np.round(load.latencies * 1e3, 4).tolist() for name, load in loads.items()}
    write_atomic(run / "latencies.json", json.dumps(latencies))
    _write_mistakes(run, loads["batches"].logits, labels)
    write_atomic(run / RESULTS_FILE, json.dumps(results, indent=2) + "\n")
    replace_link(storage.latest_results, run)
    return run


def _write_mistakes(run: Path, logits: npt.NDArray[np.float32], labels: Labels) -> None:
    predictions = logits.argmax(1)
    wrong = np.flatnonzero(predictions != labels)
    probabilities = confidences(logits)
    mistakes = [
        {
            "index": int(index),
            "label": int(labels[index]),
            "prediction": int(predictions[index]),
            "confidence": round(float(probabilities[index].max()), 4),
        }
        for index in wrong
    ]
    write_atomic(run / "mistakes.json", json.dumps(mistakes, indent=1) + "\n")


def _picture(samples: list[dict[str, Any]], images: Images) -> bytes:
    """The samples in a row, each with label, prediction and confidence, as PNG."""
    os.environ.setdefault(
        "MPLCONFIGDIR", tempfile.gettempdir()
    )  # matplotlib wants a writable cache; the root may be read-only
    from matplotlib.figure import Figure  # not at the top: it takes a second, and failures come before

    figure = Figure(figsize=(1.1 * len(samples), 1.7))
    for axes, sample in zip(figure.subplots(1, len(samples), squeeze=False)[0], samples, strict=True):
        axes.imshow(images[sample["index"]], cmap="gray_r")
        right = sample["label"] == sample["prediction"]
        axes.set_title(
            f"{sample['label']} → {sample['prediction']}\n{sample['confidence']:.1%}",
            fontsize=8,
            color="black" if right else "crimson",
        )
        axes.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return buffer.getvalue()


def _tell(results: dict[str, Any], log: StageLog) -> None:
    single, busy = results["load"]["single"], results["load"][f"concurrency_{CONCURRENCIES[-1]}"]
    equal = results["equal_to_pytorch"]
    log.say(
        f"accuracy {results['accuracy']:.4f} on {results['test_images']:,} images"
        + (f", {equal:,} predictions equal to PyTorch's" if equal is not None else "")
        + f"; p50 {single['p50_ms']:.2f} ms, p99 {single['p99_ms']:.2f} ms; "
        f"{busy['requests_per_second']:,.0f} requests/s at concurrency {CONCURRENCIES[-1]}"
    )


def main(argv: list[str] | None = None) -> int:
    return cli.run("client", parser(), argv, check)


if __name__ == "__main__":
    sys.exit(main())
