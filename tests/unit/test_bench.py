"""The arithmetic of the benchmarks, and that docs/performance.md says what was measured."""

import statistics
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from bench import images, page, results
from bench.figures import Ratio, add_round, fallen, medians, percentiles, ratios, rounded
from bench.pipeline import stage_seconds
from bench.serving import witness

MEASURED = results.measured()


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (1234.56, 1235), (0.00123456, 0.001235), (-98.7654, -98.77)])
def test_figures_are_kept_to_four_digits(value: float, expected: float) -> None:
    assert rounded(value) == expected, "more digits do not repeat"


def test_medians_and_ratios_are_over_rounds() -> None:
    rounds: dict[str, dict[str, list[float]]] = {}
    for ours, theirs in ((10, 5), (30, 10), (4, 4)):
        add_round(rounds, "ours", {"speed": ours, "ms": 1 / ours})
        add_round(rounds, "theirs", {"speed": theirs, "ms": 1 / theirs})
    assert medians(rounds)["ours"]["speed"] == 10, "the middle one"
    wanted = [Ratio("speed", "ours", "theirs"), Ratio("ms", "ours", "theirs", less_is_better=True)]
    assert ratios(rounds, wanted) == {"speed: ours / theirs": 2, "ms: ours / theirs": 2}, "the median of 2, 3 and 1"
    assert ratios(rounds, [Ratio("speed", "ours", "absent")]) == {}, "nothing is said of what was not measured"


def test_a_regression_is_named_with_its_figures() -> None:
    committed = {"a / b": 2.0, "c / d": 1.0, "not measured now": 3.0}
    assert fallen(committed, {"a / b": 1.61, "c / d": 5.0, "new": 0.1}) == {}, "within a fifth, or better"
    found = fallen(committed, {"a / b": 1.5})
    assert found == {"a / b": "a / b fell from 2.00 to 1.50 (-25%)"}, "which, and how far"


def test_percentiles_are_numpys() -> None:
    seconds = np.random.default_rng(1).exponential(size=101)
    expected = np.percentile(seconds, (50, 90, 99)) * 1e3
    assert list(percentiles(list(seconds)).values()) == pytest.approx(expected), "interpolated alike"


def test_the_stages_seconds_add_up_to_all_of_up() -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)

    def events(started: int, finished: int) -> list[dict[str, str]]:
        times = {"started": started, "finished": finished}
        return [{"event": event, "time": (began + timedelta(seconds=at)).isoformat()} for event, at in times.items()]

    stages = {"prepare-data": (2, 3), "train": (5, 65), "export": (67, 80), "client": (84, 95), "report": (97, 99)}
    found = stage_seconds(
        {name: events(*times) for name, times in stages.items()}, began, began + timedelta(seconds=100)
    )
    assert sum(found.values()) == 100, "nothing is left out or counted twice"
    assert (found["train"], found["triton"], found["client"]) == (62, 4, 11), "imports belong to their stage"


def test_an_images_layers_are_the_topmost_last_and_name_no_proxy() -> None:
    history = (
        '{"Size": "2000", "CreatedBy": "COPY mnist . # buildkit"}\n{"Size": "0", "CreatedBy": "ENV A=1"}\n'
        '{"Size": "5000000", "CreatedBy": "RUN |1 http_proxy=http://proxy /bin/sh -c pip install # buildkit"}'
    )
    assert images.layers(history) == [
        {"megabytes": 5.0, "by": "RUN pip install"},
        {"megabytes": 0.002, "by": "COPY mnist ."},
    ], "those with files in them"


def test_perf_analyzers_table_is_read() -> None:
    heads = "Concurrency,Inferences/Second,Client Send,p50 latency,p90 latency,p95 latency,p99 latency"
    expected = {"requests_per_second": 900.5, "p50_ms": 2.0, "p99_ms": 5.0}
    assert witness.parsed(f"{heads}\n16,900.5,1,2000,3,4,5000\n") == expected, "microseconds become milliseconds"


@pytest.mark.parametrize("part", MEASURED)
def test_a_results_medians_are_those_of_its_rounds(part: str) -> None:
    found = MEASURED[part]
    assert found.medians == {
        alternative: {figure: rounded(statistics.median(values)) for figure, values in figures.items()}
        for alternative, figures in found.rounds.items()
    }, "nobody changed them by hand"


def test_the_page_is_rendered_from_the_results() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.render(MEASURED), "run `python -m bench render`"


def test_the_page_shows_plots_that_are_there() -> None:
    shown = [part.partition(")")[0] for part in page.PAGE.read_text(encoding="utf-8").split("](performance/")[1:]]
    assert all((Path(page.PLOTS) / name).is_file() for name in shown), "a picture is missing"
