"""Write the HTML report of the last run: one file that needs no network.

python workloads/report.py --storage storage/local
"""

import argparse
import base64
import json
import sys
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError

from mnist import cli
from mnist.cli import StageLog, last_finished
from mnist.errors import DataError
from mnist.repository import ModelRepository
from mnist.storage import Storage, explained, write_atomic
from reporting import charts

TEMPLATES = Path(__file__).with_name("reporting")
LOADS = {
    "single": "one image a request, one by one",
    "concurrency_4": "one image a request, 4 at a time",
    "concurrency_16": "one image a request, 16 at a time",
    "batches": "batches of 16, 4 at a time",
}


def parser() -> argparse.ArgumentParser:
    options = cli.parser("report", (__doc__ or "").splitlines()[0])
    options.add_argument("--model-name", default="resnet18_mnist")
    return options


def report(options: argparse.Namespace, storage: Storage, log: StageLog) -> dict[str, Any]:
    run = storage.latest_results.resolve()
    results = _read_json(run / "results.json")
    repository = ModelRepository(storage.models, options.model_name)
    latencies = _read_json(run / "latencies.json")
    with explained(run / "samples.png", "read"):
        samples = (run / "samples.png").read_bytes()
    try:
        page = _render(
            results=results,
            single=results["load"]["single"],
            busiest=results["load"]["concurrency_16"],
            stages=_stages(results, last_finished(storage, "client")),
            loads=[(LOADS.get(name, name), load) for name, load in results["load"].items()],
            versions=[(version, repository.metadata(version)) for version in repository.versions()],
            facts=_facts(results),
            charts=_charts(results, latencies),
            samples_png=base64.b64encode(samples).decode(),
        )
    except (KeyError, TypeError, AttributeError, ValueError, UndefinedError) as error:
        raise DataError(f"{run} holds results of another kind ({error!r}): run the client stage again") from None
    path = run / "report.html"
    write_atomic(path, page)
    log.say(f"report: {path} ({len(page) >> 10} KiB)")
    return {"report": str(path)}


def _read_json(path: Path) -> Any:
    if not path.exists():
        raise DataError(f"{path} is missing: run the client stage first")
    try:
        with explained(path, "read"):
            return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise DataError(f"{path} is damaged: run the client stage again") from None


def _render(**values: Any) -> str:
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html.j2").render(**values)


def _charts(results: dict[str, Any], latencies: dict[str, list[float]]) -> dict[str, str]:
    train, single = results["stages"].get("train") or {}, results["load"]["single"]
    return {
        "training": charts.training_curves(train.get("history", []), train.get("epochs", [])),
        "confusion": charts.confusion(results["confusion"]),
        "latency": charts.latency_histogram(latencies["single"], single["p50_ms"], single["p99_ms"]),
    }


def _stages(results: dict[str, Any], client: dict[str, Any] | None) -> list[dict[str, str]]:
    """What each stage did when it last ran."""
    triton = {"seconds": results["waited_seconds"]}  # since the client asked
    finished = {**results["stages"], "triton": triton, "client": client}
    return [
        {
            "name": name,
            "seconds": f"{end['seconds']:.1f}" if end else "",
            "outcome": _outcome(name, end) if end else "–",
        }
        for name, end in finished.items()
    ]


def _outcome(stage: str, end: dict[str, Any]) -> str:
    if stage == "prepare-data":
        return f"{end['dataset']}, {end['train_images']:,} + {end['test_images']:,} images"
    if stage == "train":
        return f"test accuracy {end['accuracy']:.4f}, {end['images_per_second']:,.0f} images/s"
    if stage == "export":
        return str(end["reason"])
    return "ready (seconds the client had to wait)" if stage == "triton" else f"served accuracy {end['accuracy']:.4f}"


def _facts(results: dict[str, Any]) -> list[tuple[str, str]]:
    train, prepare = results["stages"].get("train") or {}, results["stages"].get("prepare-data") or {}
    model, environment = results["model"], results["environment"]
    network = train.get("network", {})
    return [
        ("data set", f"{results['dataset']}, from {prepare.get('source', 'unknown')}"),
        (
            "network during training",
            f"{network.get('bytes_sent', 0):,} bytes sent, "
            f"{network.get('bytes_received', 0):,} received by the machine or pod",
        ),
        ("gates", ", ".join(f"{name} {value:g}" for name, value in results["gates"].items())),
        ("model", f"{model['bytes'] / 1e6:.1f} MB, opset {model['opset']}, IR {model['ir_version']}"),
        ("parity with PyTorch", f"largest difference of logits {model['parity']['max_absolute_difference']:.1e}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in model["versions"].items())),
        ("machine", f"{environment['platform']}, {environment['cpus']} CPUs, Python {environment['python']}"),
        ("endpoint", results["endpoint"]),
    ]


def main(argv: list[str] | None = None) -> int:
    return cli.run("report", parser(), argv, report)


if __name__ == "__main__":
    sys.exit(main())
