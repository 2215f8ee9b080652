"""The report's charts as inline SVG that follows the page's colours (light or dark)."""

import io
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

os.environ.setdefault("MPLCONFIGDIR", tempfile.gettempdir())  # a container's home may be read-only

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

INK = "#010203"  # drawn in this, then replaced by the page's own text colour
ACCENT, SECOND = "#3b82c4", "#c9772b"

_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "mnist-triton",  # the same chart gives the same file
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def training_curves(history: Sequence[dict[str, float]], epochs: Sequence[dict[str, float]]) -> str:
    """Training loss and accuracy by step, with each epoch's test accuracy."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 2.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        steps = [entry["step"] for entry in history]
        left.plot(steps, [entry["loss"] for entry in history], color=ACCENT, linewidth=0.8)
        left.set(xlabel="step", ylabel="training loss", yscale="log")
        right.plot(steps, [entry["accuracy"] for entry in history], color=ACCENT, linewidth=0.8, label="training batch")
        right.plot(
            [entry["step"] for entry in epochs],
            [entry["test_accuracy"] for entry in epochs],
            color=SECOND,
            marker="o",
            markersize=4,
            linewidth=1,
            label="test set",
        )
        right.set(xlabel="step", ylabel="accuracy")
        right.yaxis.set_major_formatter(PercentFormatter(1))
        right.legend(loc="lower right")
        return _svg(figure, "Training loss and accuracy by step")


def confusion(matrix: Sequence[Sequence[int]]) -> str:
    """True digit by predicted digit; mistakes are shaded, the diagonal is only numbered."""
    counts = np.array(matrix)
    mistakes = counts * (1 - np.eye(len(counts), dtype=int))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.2, 3.9), layout="constrained")
        axes = figure.subplots()
        shades = mpl.colormaps["Oranges"](mistakes / max(1, mistakes.max()))
        shades[..., 3] = np.where(mistakes > 0, 0.9, 0.0)
        axes.imshow(shades)
        for row, column in np.ndindex(*counts.shape):
            if counts[row, column]:
                share = mistakes[row, column] / max(1, mistakes.max())
                shown = INK if share == 0 else "white" if share > 0.6 else "black"
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7, color=shown)
        axes.set(xlabel="predicted", ylabel="label", xticks=range(len(counts)), yticks=range(len(counts)))
        return _svg(figure, "Confusion matrix of the served model")


def latency_histogram(single: Sequence[float], p50: float, p99: float) -> str:
    """Latencies of single-image requests in milliseconds, the slowest half percent cut off."""
    shown = np.clip(single, None, float(np.percentile(single, 99.5)))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 2.4), layout="constrained")
        axes = figure.subplots()
        axes.hist(shown, bins=60, color=ACCENT)
        for value, name in ((p50, "p50"), (p99, "p99")):
            axes.axvline(value, color=SECOND, linewidth=1)
            axes.annotate(f" {name} {value:.2f} ms", (value, axes.get_ylim()[1] * 0.92), color=SECOND, fontsize=8)
        axes.set(xlabel="milliseconds", ylabel="requests")
        return _svg(figure, "Latency of single-image requests")


def _svg(figure: Figure, label: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
