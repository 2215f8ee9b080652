"""Write the HTML report of the last run: one file that needs no network.

python workloads/report.py --storage storage/local
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError

from mnist import cli
from mnist.cli import StageLog, last_finished
from mnist.data import load
from mnist.errors import DataError, PipelineError
from mnist.repository import ModelRepository
from mnist.storage import Storage, explained, write_atomic
from reporting import charts, facts, history, pictures
from reporting.commands import commands
from reporting.pictures import Digit

TEMPLATES = Path(__file__).with_name("reporting")
SINGLES = {"single": "one by one", "concurrency_4": "4 at a time", "concurrency_16": "16 at a time"}
LOADS = {name: f"one image a request, {how}" for name, how in SINGLES.items()} | {
    "batches": "batches of 16, 4 at a time"
}


def parser() -> argparse.ArgumentParser:
    options = cli.parser("report", (__doc__ or "").splitlines()[0])
    options.add_argument("--model-name", default="resnet18_mnist")
    return options


def report(options: argparse.Namespace, storage: Storage, log: StageLog) -> dict[str, Any]:
    run = storage.latest_results.resolve()
    results, latencies, mistakes = (
        _read_json(run / name) for name in ("results.json", "latencies.json", "mistakes.json")
    )
    repository = ModelRepository(storage.models, options.model_name)
    try:
        train = results["stages"].get("train") or {}
        known = history.versions(storage, repository, results["served_version"])
        samples, worst = _pictures(results, mistakes, storage, log)
        page = _render(
            results=results,
            single=results["load"]["single"],
            busiest=results["load"]["concurrency_16"],
            stages=facts.stages(results, last_finished(storage, "client")),
            loads=[(LOADS.get(name, name), load) for name, load in results["load"].items()],
            most_mistakes=_most_mistakes(results["confusion"]),
            mistakes=len(mistakes),
            samples=samples,
            worst=worst,
            versions=known,
            data_set=facts.data_set(results),
            environment=facts.environment(results),
            commands=commands(storage, options.model_name, train.get("config", {}).get("threads")),
            charts=_charts(results, train, latencies, known),
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, UndefinedError) as error:
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
    environment.filters["moment"] = lambda iso: iso[:16].replace("T", " ")  # 2026-11-22T14:20:40+00:00, to the minute
    return environment.get_template("report.html.j2").render(**values)


def _charts(
    results: dict[str, Any], train: dict[str, Any], latencies: dict[str, list[float]], known: list[history.Version]
) -> dict[str, str]:
    return {
        "training": charts.training(train.get("history", []), train.get("epochs", [])),
        "latencies": charts.latencies(latencies, results["load"], SINGLES),
        "versions": charts.versions(known) if len(known) > 1 else "",
    }


def _pictures(
    results: dict[str, Any], mistakes: list[dict[str, Any]], storage: Storage, log: StageLog
) -> tuple[list[Digit], list[Digit]]:
    """The samples and the worst mistakes; none where the test data are not those of the run any more."""
    try:
        images, labels = load(storage.data, "t10k")
    except PipelineError as error:
        log.warn(f"no pictures in the report: {error}")
        return [], []
    samples, worst = results["samples"], pictures.worst(mistakes)
    if not pictures.belong(images, labels, results, [*samples, *worst]):
        log.warn("no pictures in the report: the test data have changed since the client sent them")
        return [], []
    return pictures.digits(samples, images), pictures.digits(worst, images)


def _most_mistakes(confusion: list[list[int]]) -> int:
    """The largest number off the diagonal, at least 1."""
    off = [count for row, counts in enumerate(confusion) for column, count in enumerate(counts) if row != column]
    return max(1, *off)


def main(argv: list[str] | None = None) -> int:
    return cli.run("report", parser(), argv, report)


if __name__ == "__main__":
    sys.exit(main())
