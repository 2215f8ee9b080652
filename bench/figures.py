"""The arithmetic of the benchmarks: medians, paired ratios, and which of them fell."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Rounds = dict[str, dict[str, list[float]]]  # alternative → figure → one value a round
Medians = dict[str, dict[str, float]]

TOLERANCE = 0.2  # what a ratio may fall by before it is a regression


@dataclass(frozen=True)
class Ratio:
    """How many times better the first alternative is than the second, by one figure."""

    figure: str
    ours: str
    theirs: str
    less_is_better: bool = False

    def __str__(self) -> str:
        return f"{self.figure}: {self.ours} / {self.theirs}"


def add_round(rounds: Rounds, alternative: str, figures: Mapping[str, float]) -> None:
    for figure, value in figures.items():
        rounds.setdefault(alternative, {}).setdefault(figure, []).append(rounded(value))


def rounded(value: float, digits: int = 4) -> float:
    """To so many significant digits: more than the measuring repeats."""
    return (
        value
        if value == 0 or not math.isfinite(value)
        else round(value, digits - 1 - math.floor(math.log10(abs(value))))
    )


def medians(rounds: Rounds) -> Medians:
    return {
        alternative: {figure: rounded(statistics.median(values)) for figure, values in figures.items()}
        for alternative, figures in rounds.items()
    }


def ratios(rounds: Rounds, wanted: Iterable[Ratio]) -> dict[str, float]:
    """Each ratio's median over the rounds; what was not measured is left out.

    Both values of a ratio are of the same round, so what else the machine does meets both.
    """
    found = {}
    for ratio in wanted:
        ours = rounds.get(ratio.ours, {}).get(ratio.figure)
        theirs = rounds.get(ratio.theirs, {}).get(ratio.figure)
        if ours and theirs:
            found[str(ratio)] = _median_ratio(theirs, ours) if ratio.less_is_better else _median_ratio(ours, theirs)
    return found


def _median_ratio(values: Sequence[float], others: Sequence[float]) -> float:
    return rounded(statistics.median(value / other for value, other in zip(values, others, strict=True)))


def fallen(committed: Mapping[str, float], now: Mapping[str, float], tolerance: float = TOLERANCE) -> dict[str, str]:
    """What is said of each ratio that is more than `tolerance` below the committed one; new ones are no regression."""
    return {
        name: f"{name} fell from {before:.2f} to {now[name]:.2f} ({now[name] / before - 1:+.0%})"
        for name, before in committed.items()
        if name in now and now[name] < before * (1 - tolerance)
    }


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p90 and p99 in milliseconds, interpolated as NumPy does."""
    ordered = sorted(seconds)
    found = {}
    for share in (50, 90, 99):
        place = (len(ordered) - 1) * share / 100
        below = math.floor(place)
        above = min(below + 1, len(ordered) - 1)
        found[f"p{share}_ms"] = (ordered[below] + (ordered[above] - ordered[below]) * (place - below)) * 1e3
    return found
