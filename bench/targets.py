"""What is aimed at, and whether the figures reach it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import mean

from bench.figures import Medians
from bench.results import Results
from bench.serving.part import OURS, alternatives

CONCURRENT = (4, 16, 64)
WITH_CUDA = 2000  # MB: no image without it is as large
Measured = Mapping[str, Results]


@dataclass(frozen=True)
class Verdict:
    """One target beside what was measured."""

    target: str
    found: str
    holds: bool


def verdicts(measured: Measured) -> list[Verdict]:
    """Of the parts that were measured."""
    parts: dict[str, Callable[[Results], Iterator[Verdict]]] = {
        "training": _training,
        "epochs": _epochs,
        "export": _export,
        "serving": _serving,
        "pipeline": _pipeline,
        "cluster": _cluster,
        "images": _images,
    }
    return [verdict for name, judge in parts.items() if name in measured for verdict in judge(measured[name])]


def _training(results: Results) -> Iterator[Verdict]:
    ratio = results.ratios["images_per_second: ours / baseline"]
    yield Verdict("training: images a second ≥ 3 × the baseline", f"{ratio:.2f} ×", ratio >= 3)


def _epochs(results: Results) -> Iterator[Verdict]:
    ratio = results.ratios["seconds: ours / baseline"]
    yield Verdict("an epoch with its evaluation: ≥ 3 × as fast as the baseline", f"{ratio:.2f} ×", ratio >= 3)
    baseline, ours = (mean(results.rounds[name]["accuracy"]) for name in ("baseline", "ours"))
    yield Verdict("… at no lower accuracy (mean of the seeds)", f"{ours:.2%} and {baseline:.2%}", ours >= baseline)
    peak = max(results.rounds["ours"]["peak_mb"])
    yield Verdict("… and at most 2.5 GB of memory", f"{peak / 1000:.2f} GB", peak <= 2500)


def _export(results: Results) -> Iterator[Verdict]:
    facts = results.facts
    size, equal = facts["fp32"]["bytes"] / 1e6, facts["fp32"]["equal_predictions"]
    yield Verdict("export: ≤ 17 MB", f"{size:.1f} MB", size <= 17)
    yield Verdict("export: PyTorch's prediction for every test image", f"{equal:.2%}", equal == 1)
    loss = (facts["fp32"]["accuracy"] - facts["int8"]["accuracy"]) * 100
    yield Verdict("int8: at most 0.1 points less accurate than fp32", f"{loss:+.2f} points lost", loss <= 0.1 + 1e-9)
    slowest = min(results.ratios[f"images_per_second_batch_{batch}: int8 / fp32"] for batch in (1, 16))
    yield Verdict("int8: faster than fp32 at batch 1 and 16", f"{slowest:.2f} × at least", slowest > 1)


def _serving(results: Results) -> Iterator[Verdict]:
    found = results.medians
    for export, ours in OURS.items():
        ratio = results.ratios[f"requests_per_second_at_16: {ours} / reference config fp32"]
        yield Verdict(f"serving {export}: ≥ 2.5 × the reference configuration at 16", f"{ratio:.2f} ×", ratio >= 2.5)
    for export, ours in OURS.items():
        others = alternatives(list(found), export)
        yield _ahead(results, export, ours, others)
        best = min(others, key=lambda name: found[name]["p50_ms_at_1"])
        share = found[ours]["p50_ms_at_1"] / found[best]["p50_ms_at_1"]
        yield Verdict(
            f"serving {export}: p50 alone ≤ 1.25 × the best alternative's", f"{share:.2f} × {best}", share <= 1.25
        )
        spread = found[ours]["p99_ms_at_half_load"] / found[ours]["p50_ms_at_half_load"]
        yield Verdict(f"serving {export}: p99 at half load ≤ 5 × p50", f"{spread:.1f} ×", spread <= 5)


def _ahead(results: Results, export: str, ours: str, others: list[str]) -> Verdict:
    pairs = [
        (results.ratios[f"requests_per_second_at_{concurrency}: {ours} / {name}"], concurrency, name)
        for concurrency in CONCURRENT
        for name in others
    ]
    ratio, concurrency, name = min(pairs)
    text = f"{ratio:.2f} × {name} at {concurrency}, the closest"
    return Verdict(f"serving {export}: ahead of every alternative from 4 requests in flight on", text, ratio > 1)


def _pipeline(results: Results) -> Iterator[Verdict]:
    return _stack(results, "local", besides=45, unchanged=5)


def _cluster(results: Results) -> Iterator[Verdict]:
    return _stack(results, "dev", besides=120, unchanged=15)


def _stack(results: Results, stack: str, besides: int, unchanged: int) -> Iterator[Verdict]:
    limits = (
        ("first up", "besides training", "`up` besides training", besides),
        ("first up", "client check", "the client's check", 15),
        ("unchanged up", "up", "an unchanged `up`", unchanged),
    )
    for alternative, figure, text, limit in limits:
        seconds = results.medians[alternative][figure]
        yield Verdict(f"stack `{stack}`, {text}: ≤ {limit} s", f"{seconds:.1f} s", seconds <= limit)


def _images(results: Results) -> Iterator[Verdict]:
    sizes: Medians = results.medians
    for name, limit in (("triton", 500), ("client-job", 300)):
        if name in sizes:
            size = sizes[name]["megabytes"]
            yield Verdict(f"image `{name}`: ≤ {limit} MB", f"{size:,.0f} MB", size <= limit)
    if "tr-ex-job" in sizes:
        size = sizes["tr-ex-job"]["megabytes"]
        told = f"{size:,.0f} MB{', with CUDA' if size > WITH_CUDA else ''}"
        yield Verdict("image `tr-ex-job` with PyTorch for CPUs: ≤ 1,200 MB", told, size <= 1200)
