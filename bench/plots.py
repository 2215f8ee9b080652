"""The page's plots: small SVG files that are legible on light and on dark pages."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("MPLCONFIGDIR", tempfile.gettempdir())

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.results import Results
from bench.serving.loads import SINGLES

OURS, OTHER, REFERENCE = "#3b82c4", "#8a8a8a", "#c9772b"
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "mnist-triton",  # the same plot gives the same file
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "savefig.facecolor": "white",
}
SHOWN = {  # by throughput, each in its style
    "ours int8": (OURS, "-"),
    "ours fp32": (OURS, "--"),
    "reference config fp32": (REFERENCE, "--"),
    "fastapi raw ×2 int8": ("#4c9a5b", "-"),
    "fastapi raw ×2 fp32": ("#4c9a5b", "--"),
    "grpc.aio int8": ("#8e6bb8", "-"),
    "grpc.aio fp32": ("#8e6bb8", "--"),
    "mlserver fp32": (OTHER, "--"),
}


def write(measured: Mapping[str, Results], directory: Path) -> list[str]:
    """One file for each part that has a plot; returns their names."""
    directory.mkdir(parents=True, exist_ok=True)
    drawn = {"training": _training, "export": _export, "serving": _throughput, "latency": _latency}
    made = []
    with mpl.rc_context(_STYLE):
        for name, draw in drawn.items():
            part = measured.get("serving" if name == "latency" else name)
            if part is not None:
                figure = draw(part)
                figure.savefig(directory / f"{name}.svg", metadata={"Date": None})
                made.append(name)
    return made


def _training(results: Results) -> Figure:
    values = {name: figures["images_per_second"] for name, figures in results.medians.items()}
    return _bars(values, "images a second", {"ours": OURS})


def _export(results: Results) -> Figure:
    figure = Figure(figsize=(6.4, 1.7), layout="constrained")
    for axes, batch in zip(figure.subplots(1, 2, sharey=True), (1, 16), strict=True):
        values = {name: found[f"images_per_second_batch_{batch}"] for name, found in results.medians.items()}
        _draw_bars(axes, values, {"fp32": OURS, "int8": OURS})
        axes.set(xlabel=f"images a second, batch {batch}")
    return figure


def _latency(results: Results) -> Figure:
    values = {name: figures["p50_ms_at_1"] for name, figures in results.medians.items()}
    colours = {name: OURS for name in values if name.startswith("ours")}
    colours |= {name: REFERENCE for name in values if name.startswith("reference")}
    ordered = dict(sorted(values.items(), key=lambda pair: pair[1]))
    return _bars(ordered, "p50 of one image at a time, milliseconds", colours)


def _throughput(results: Results) -> Figure:
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    places = range(len(SINGLES))
    for name, (colour, line) in SHOWN.items():
        found = results.medians.get(name)
        if found is not None:
            rates = [found[f"requests_per_second_at_{load.name}"] for load in SINGLES]
            axes.plot(places, rates, line, color=colour, marker="o", markersize=3, label=name)
    axes.set(xlabel="requests in flight, one image each", ylabel="requests a second", ylim=(0, None))
    axes.set_xticks(places, [load.name for load in SINGLES])
    figure.legend(loc="outside right center", fontsize=8)
    return figure


def _bars(values: Mapping[str, float], label: str, colours: Mapping[str, str]) -> Figure:
    figure = Figure(figsize=(6.4, 0.5 + 0.24 * len(values)), layout="constrained")
    axes = figure.subplots()
    _draw_bars(axes, values, colours)
    axes.set(xlabel=label)
    return figure


def _draw_bars(axes: Axes, values: Mapping[str, float], colours: Mapping[str, str]) -> None:
    names: Sequence[str] = list(values)
    drawn = axes.barh(names, list(values.values()), color=[colours.get(name, OTHER) for name in names])
    axes.bar_label(drawn, [f" {value:,.3g}" if value < 100 else f" {value:,.0f}" for value in values.values()])
    axes.invert_yaxis()
    axes.margins(x=0.15)
