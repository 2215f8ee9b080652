"""docs/performance.md, out of bench/results/."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from bench import ROOT
from bench.results import Results
from bench.serving.loads import BATCHES, SINGLES
from bench.targets import verdicts

TEMPLATE = Path(__file__).with_name("performance.md.j2")
PAGE, PLOTS = ROOT / "docs" / "performance.md", ROOT / "docs" / "performance"


def write(measured: Mapping[str, Results]) -> Path:
    from bench import plots  # takes a second to import

    plots.write(measured, PLOTS)
    PAGE.write_text(render(measured), encoding="utf-8")
    return PAGE


def render(measured: Mapping[str, Results]) -> str:
    return rendered(TEMPLATE, measured=measured, verdicts=verdicts(measured), tables=Tables(measured))


def rendered(template: Path, **values: Any) -> str:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["number"] = number
    return environment.from_string(template.read_text(encoding="utf-8")).render(**values)


def number(value: float) -> str:
    """As exact as the measuring: three digits, and none behind the point of large ones."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 0.1 else f"{value:.2g}"


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """In Markdown; numbers to the right."""
    cells = [[cell if isinstance(cell, str) else number(cell) for cell in row] for row in rows]
    line = ["---", *("---:" for _ in heads[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [list(heads), line, *cells])


class Tables:
    """The page's tables by name."""

    def __init__(self, measured: Mapping[str, Results]) -> None:
        self.measured = measured

    def training(self) -> str:
        results = self.measured["training"]
        rows = [
            (
                name,
                found["images_per_second"],
                results.ratios.get(f"images_per_second: {name} / baseline", 1.0),
                found["peak_mb"] / 1e3,
            )
            for name, found in results.medians.items()
        ]
        return table(("recipe", "images/s", "× baseline", "peak memory, GB"), rows)

    def epochs(self) -> str:
        results = self.measured["epochs"]
        rows = [
            (
                name,
                found["seconds"],
                ", ".join(f"{accuracy:.2%}" for accuracy in results.rounds[name]["accuracy"]),
                max(results.rounds[name]["peak_mb"]) / 1e3,
            )
            for name, found in results.medians.items()
        ]
        return table(("recipe", "seconds", "accuracy by seed", "peak memory, GB"), rows)

    def export(self) -> str:
        results = self.measured["export"]
        rows = []
        for name, found in results.medians.items():
            facts = results.facts[name]
            exact = (f"{facts['accuracy']:.2%}", f"{facts['equal_predictions']:.2%}")
            speeds = [
                found[figure] for figure in ("ms_batch_1", "images_per_second_batch_1", "images_per_second_batch_16")
            ]
            rows.append((name, facts["bytes"] / 1e6, *exact, facts["max_absolute_difference"], *speeds))
        heads = ("export", "MB", "accuracy", "PyTorch's predictions", "largest difference of logits")
        return table((*heads, "ms, one image", "images/s, one by one", "images/s, batches of 16"), rows)

    def latency(self) -> str:
        """Alone, and at half of what the server can do at most."""
        rows = []
        for name, found in self.measured["serving"].medians.items():
            alone = [found[f"{share}_ms_at_1"] for share in ("p50", "p90", "p99")]
            half = [found.get(f"{share}_ms_at_half_load", "") for share in ("p50", "p99")]
            rows.append((name, *alone, *half))
        return table(("server and model", "p50", "p90", "p99", "p50, half load", "p99, half load"), rows)

    def throughput(self) -> str:
        rows = []
        for name, found in self.measured["serving"].medians.items():
            singles = [found[f"requests_per_second_at_{load.name}"] for load in SINGLES]
            cpu = found.get("server_cpu_ms_at_16", "")
            rows.append((name, *singles, found[f"requests_per_second_at_{BATCHES.name}"] * BATCHES.batch, cpu))
        heads = ("server and model", *(f"{load.name} at a time" for load in SINGLES))
        return table((*heads, "images/s, 4 batches of 16 at a time", "server's CPU ms a request at 16"), rows)

    def witness(self) -> str:
        rows = []
        for name, found in self.measured["serving"].medians.items():
            if "witness_p50_ms_at_1" in found:
                pairs = [("p50_ms", 1), ("requests_per_second", 16)]
                figures = [found[f"{of}{figure}_at_{load}"] for figure, load in pairs for of in ("", "witness_")]
                rows.append((name, *figures))
        return table(
            ("server and model", "p50 ms, ours", "perf_analyzer", "requests/s at 16, ours", "perf_analyzer"), rows
        )

    def tuning(self) -> str:
        figures = (
            *("p50_ms_at_1", "requests_per_second_at_1", "requests_per_second_at_4", "requests_per_second_at_16"),
            *("requests_per_second_at_64", f"requests_per_second_at_{BATCHES.name}", "p99_ms_at_half_load"),
            "server_cpu_ms_at_16",
        )
        rows = [
            (name.removeprefix("fp32: "), *(found[figure] for figure in figures))
            for name, found in self.measured["tuning"].medians.items()
        ]
        heads = ("instances × threads, delay", "p50 ms alone", "requests/s at 1", "at 4", "at 16", "at 64")
        return table((*heads, "4 batches of 16", "p99 ms, half load", "CPU ms at 16"), rows)

    def stages(self, part: str) -> str:
        found = self.measured[part].medians["stages"]
        return table(("stage", "seconds"), [*found.items(), ("together", sum(found.values()))])

    def beside_the_base(self, image: str) -> float:
        """Megabytes of an image's own layers."""
        results = self.measured["images"]
        return results.medians[image]["megabytes"] - float(results.facts[image][0]["megabytes"])

    def images(self) -> str:
        results = self.measured["images"]
        rows = []
        for name, found in results.medians.items():
            layers = results.facts[name]
            code = sum(layer["megabytes"] for layer in layers if "/app" in layer["by"])
            rows.append((f"`{name}`", found["megabytes"], layers[0]["megabytes"], code))
        return table(("image", "MB, unpacked", "of it the base image", "of it our code, the last layers"), rows)
