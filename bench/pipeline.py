"""The pipeline on stack `local`: `up` by stage, what is not training, an unchanged `up`, and the client's check."""

import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.checkout import Checkout, make_checkout

from bench.errors import BenchError
from bench.figures import add_round
from bench.prepared import Say
from bench.results import Recorder, Results

UNCHANGED = 3
JOBS = ("prepare-data", "train", "export", "client", "report")
TRITON = "triton"  # has no log of its own: it is what lies between export and client


def run(short: bool, say: Say) -> Results:
    """In a copy of the checkout, which shares what set-up made."""
    recorder = Recorder("pipeline", "python -m bench pipeline")
    data = os.environ.get("MNIST_DIR")
    if not data:
        raise BenchError("MNIST_DIR is not set: the pipeline is measured with MNIST present")
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        checkout = make_checkout(Path(directory) / "checkout")
        checkout.configure(dataset="mnist", datasetDir=str(Path(data).resolve()), keepData="false")
        try:
            measure(checkout, recorder, say)
        finally:
            checkout.run("down")
    return recorder.results()


def measure(checkout: Checkout, recorder: Recorder, say: Say, fetch_logs: Callable[[], object] = lambda: None) -> None:
    """A first `up` by stage, and unchanged ones."""
    say(f"{recorder.part}: a first `up`, 2 min")
    began = datetime.now(UTC)
    seconds = up(checkout)
    ended = datetime.now(UTC)
    fetch_logs()
    timeline = stage_seconds({stage: checkout.events(stage) for stage in JOBS}, began, ended)
    training = float(_finished(checkout.events("train"))["training_seconds"])
    client = float(_finished(checkout.events("client"))["seconds"])
    figures = {"up": seconds, "training": training, "besides training": seconds - training, "client check": client}
    add_round(recorder.rounds, "first up", figures)
    add_round(recorder.rounds, "stages", timeline)
    for number in range(UNCHANGED):
        say(f"{recorder.part}: an unchanged `up`, {number + 1} of {UNCHANGED}")
        add_round(recorder.rounds, "unchanged up", {"up": up(checkout)})


def up(checkout: Checkout) -> float:
    """Its seconds."""
    began = time.monotonic()
    done = checkout.run("up")
    if done.status != 0:
        raise BenchError(f"`up` failed: {done.output.strip().splitlines()[-1]}")
    return time.monotonic() - began


def stage_seconds(events: dict[str, list[dict[str, Any]]], began: datetime, ended: datetime) -> dict[str, float]:
    """Wall-clock seconds by stage, its imports included, from the end of the stage before it; together, all of `up`."""
    found = {}
    before = began
    for stage in JOBS:
        started, finished = (_time(events[stage], event) for event in ("started", "finished"))
        if stage == "prepare-data":
            found["pulumi, until the first stage"] = (started - before).total_seconds()
            before = started
        if stage == "client":
            found[TRITON] = (started - before).total_seconds()
            before = started
        found[stage] = (finished - before).total_seconds()
        before = finished
    found["pulumi, after the last stage"] = (ended - before).total_seconds()
    return found


def _finished(events: list[dict[str, Any]]) -> dict[str, Any]:
    return next(event for event in reversed(events) if event["event"] == "finished")


def _time(events: list[dict[str, Any]], kind: str) -> datetime:
    return datetime.fromisoformat(next(event["time"] for event in events if event["event"] == kind))
