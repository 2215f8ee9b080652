"""NVIDIA's perf_analyzer as an independent witness of our own client's figures."""

import csv
import os
import platform
import subprocess
import tempfile
from pathlib import Path

from bench import ROOT
from bench.figures import add_round
from bench.prepared import Say
from bench.results import Recorder
from bench.serving.loads import Bench

PERF_ANALYZER = ROOT / ".venv-bench" / "perf-analyzer" / "bin" / "perf_analyzer"
MIN_GLIBC = (2, 38)
CONCURRENCIES = (1, 16)
ASKED = ("ours fp32", "ours int8", "reference config fp32")
MILLISECONDS = 2000  # of one of its measurements; it repeats them until three agree


def add(bench: Bench, recorder: Recorder, say: Say) -> None:
    """Measure with it what it can ask, or say why not."""
    reason = _missing()
    if reason:
        recorder.missing["perf_analyzer"] = reason
        return
    for name in ASKED:
        endpoint = bench.alternatives[name].endpoint
        for concurrency in CONCURRENCIES:
            say(f"serving: perf_analyzer on {name}, {concurrency} at a time")
            found = _measure(endpoint.address, endpoint.model, concurrency)
            add_round(recorder.rounds, name, {f"witness_{key}_at_{concurrency}": value for key, value in found.items()})


def _missing() -> str:
    version = platform.libc_ver()[1]
    if tuple(map(int, version.split("."))) < MIN_GLIBC:
        return f"it needs glibc 2.38, this machine has {version}"
    return "" if PERF_ANALYZER.exists() else "not installed: `make bench` installs it"


def _measure(address: str, model: str, concurrency: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        table = Path(directory) / "table.csv"
        options = ["-m", model, "-u", address, "-i", "grpc", "-b", "1", "--measurement-interval", str(MILLISECONDS)]
        options += ["--concurrency-range", str(concurrency), "--percentile=99", "-f", str(table)]
        subprocess.run(
            [PERF_ANALYZER, *options], env=os.environ, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        return parsed(table.read_text(encoding="utf-8"))


def parsed(table: str) -> dict[str, float]:
    """Its CSV: a header, and one line for a concurrency; latencies in microseconds."""
    row = next(iter(csv.DictReader(table.splitlines())))
    return {
        "requests_per_second": float(row["Inferences/Second"]),
        "p50_ms": float(row["p50 latency"]) / 1e3,
        "p99_ms": float(row["p99 latency"]) / 1e3,
    }
