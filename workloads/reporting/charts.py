"""The report's charts as inline SVG in the page's own colours, light or dark."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from reporting.history import Version

# Drawn in these, then replaced by the page's own colours.
INK, ACCENT, SECOND = "#010203", "#010204", "#010205"
COLOURS = {INK: "currentColor", ACCENT: "var(--accent)", SECOND: "var(--second)"}
WIDTH = 9.6  # inches; at 96 pixels an inch this is the page's width
FEW_DECADES = 4  # so many leave room for labels between the powers of ten
MOST_STEPS = 1000  # points of a training curve; more would only make the file large

_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "mnist-triton",  # the same chart gives the same file
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def training(history: Sequence[Mapping[str, float]], epochs: Sequence[Mapping[str, float]]) -> str:
    """Training loss and accuracy by step, with each epoch's result on the test set."""
    steps, loss, accuracy = _thinned(history)
    ends = [entry["step"] for entry in epochs]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(steps, loss, color=ACCENT, linewidth=0.9, label="training batch")
        left.set(xlabel="step", ylabel="loss", yscale="log")
        left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if _decades(loss) < FEW_DECADES else (1,)))
        left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        left.yaxis.set_minor_formatter(NullFormatter())  # its labels would lie on each other
        right.plot(steps, accuracy, color=ACCENT, linewidth=0.9, label="training batch")
        right.set(xlabel="step", ylabel="accuracy")
        right.yaxis.set_major_formatter(PercentFormatter(1))
        for axes, figure_name in ((left, "test_loss"), (right, "test_accuracy")):
            values = [entry[figure_name] for entry in epochs]
            axes.plot(ends, values, color=SECOND, marker="o", markersize=4, linewidth=1, label="test set")
        left.legend(loc="upper right")
        right.legend(loc="lower right")
        return _svg(figure, "training", "Loss and accuracy by training step")


def latencies(
    measured: Mapping[str, Sequence[float]], loads: Mapping[str, Mapping[str, float]], names: Mapping[str, str]
) -> str:
    """A histogram of milliseconds for each way of asking, the slowest half percent put into the last bar."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            _histogram(axes, measured[name], loads[name], names[name])
        return _svg(figure, "latencies", "Latencies of single-image requests")


def _histogram(axes: Axes, measured: Sequence[float], load: Mapping[str, float], name: str) -> None:
    axes.hist(np.clip(measured, None, float(np.percentile(measured, 99.5))), bins=50, color=ACCENT)
    for value, style in ((load["p50_ms"], "-"), (load["p99_ms"], "--")):
        axes.axvline(value, color=SECOND, linewidth=1.2, linestyle=style)
    # Above the bars: beside the lines the words would lie on each other.
    axes.set_title(f"{name}\np50 {load['p50_ms']:.2f} (line), p99 {load['p99_ms']:.2f} ms (dashed)")
    axes.set(xlabel="ms")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))


def versions(known: Sequence[Version]) -> str:
    """Accuracy and latency by version, oldest first."""
    ordered = sorted(known, key=lambda version: version.version)
    checked = [(version.version, version.p50, version.p99) for version in ordered if version.p50 is not None]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, 2.5), layout="constrained")
        left, right = figure.subplots(1, 2, sharex=True)
        dots: Any = {"marker": "o", "markersize": 4, "linewidth": 1}
        left.plot([one.version for one in ordered], [one.accuracy for one in ordered], color=ACCENT, **dots)
        left.set(ylabel="accuracy")
        left.yaxis.set_major_formatter(PercentFormatter(1, decimals=2))
        for column, colour, style, name in ((1, ACCENT, "-", "p50"), (2, SECOND, "--", "p99")):
            values = [row[column] for row in checked]
            right.plot([row[0] for row in checked], values, color=colour, linestyle=style, label=name, **dots)
        right.set(ylabel="one image, ms")
        right.set_ylim(0, None if checked else 1)
        right.legend(loc="lower right")
        for axes in (left, right):
            axes.set(xlabel="version")
            axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
            axes.margins(x=0.08, y=0.2)
        return _svg(figure, "versions", "Accuracy and latency by version")


def _decades(values: npt.NDArray[np.float64]) -> float:
    """How many powers of ten lie between the least and the greatest of the positive values."""
    positive = values[values > 0]
    return float(np.log10(positive.max() / positive.min())) if len(positive) else 0.0


def _thinned(history: Sequence[Mapping[str, float]]) -> list[npt.NDArray[np.float64]]:
    """Steps, losses and accuracies; means of neighbours where there are very many."""
    table = np.array([[entry["step"], entry["loss"], entry["accuracy"]] for entry in history], dtype=np.float64)
    if not len(table):
        return [np.empty(0)] * 3
    every = -(-len(table) // MOST_STEPS)
    means = [table[start : start + every].mean(0) for start in range(0, len(table), every)]
    return list(np.array(means).T)


def _svg(figure: Figure, name: str, label: str) -> str:
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for drawn, shown in COLOURS.items():
        svg = svg.replace(drawn, shown)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)  # ids are to be the page's only ones
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
