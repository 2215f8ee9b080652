"""Measure this project and what people would use instead, side by side.

    python -m bench [PART …] [--short] [--full]

    training   images a second of four recipes
    epochs     whole epochs of the baseline and of this project, with three seeds each (12 min)
    export     the exported model's sizes, parity and speed
    serving    this project's Triton and other servers with the same model files
    tuning     instances, threads and delays of Triton
    pipeline   `up` by stage
    cluster    the same on Kubernetes, where KUBECONFIG names one
    scaling    replicas, training processes, resources of a stack: docs/scaling.md
    images     sizes and layers, where Docker has them
    render     docs/performance.md and docs/scaling.md out of bench/results/, without measuring
    check      the short form; fails where a ratio is, twice, more than 20 % below the committed one

No part: all that measure, then the page is rendered; epochs only with --full, the cluster only when named.
--short is for trying: it renders and overwrites nothing. check leaves out JSON (bench/parts.py says why).
"""

import argparse
import sys
import time

from bench import page, scaling_page
from bench.errors import BenchError
from bench.figures import TOLERANCE, fallen
from bench.parts import CHECKED, PARTS, SCATTERED, SHORT_RESULTS
from bench.results import COMMITTED, measured, read
from mnist.errors import PipelineError

RENDER, CHECK = "render", "check"
EPOCHS = "epochs"
ON_REQUEST = (EPOCHS, "cluster")


def main() -> int:
    options = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("parts", nargs="*", metavar="PART", help=", ".join([*PARTS, RENDER, CHECK]))
    options.add_argument("--short", action="store_true", help="few and short rounds")
    options.add_argument("--full", action="store_true", help="with whole epochs of training")
    arguments = options.parse_args()
    unknown = set(arguments.parts) - {*PARTS, RENDER, CHECK}
    if unknown:
        options.error(f"no such part: {', '.join(sorted(unknown))}")
    try:
        if arguments.parts == [CHECK]:
            return check()
        names = arguments.parts or [name for name in PARTS if name not in ON_REQUEST]
        run([*names, *([EPOCHS] if arguments.full else [])], arguments.short)
    except (BenchError, PipelineError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run(names: list[str], short: bool) -> None:
    began = time.monotonic()

    def say(message: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {message}", flush=True)

    for name in (name for name in names if name in PARTS):
        results = PARTS[name](short, say)
        say(f"written: {results.write(SHORT_RESULTS if short else COMMITTED)}")
    if not short:
        found = measured()
        say(f"written: {page.write(found)}")
        if "scaling" in found:
            say(f"written: {scaling_page.write(found)}")


def check() -> int:
    """Times differ from machine to machine; how many times faster one way is than another beside it differs less."""
    regressions: list[str] = []
    for name in CHECKED:
        committed = {ratio: value for ratio, value in read(name).ratios.items() if SCATTERED not in ratio}
        found = fallen(committed, _short_ratios(name))
        if found:  # what else a machine does can make one ratio fall once
            print(f"{name}: measured again, as {len(found)} fell", flush=True)
            found = {ratio: text for ratio, text in fallen(committed, _short_ratios(name)).items() if ratio in found}
        regressions += found.values()
    for regression in regressions:
        print(f"error: {regression}", file=sys.stderr)
    if not regressions:
        print(f"no ratio of {', '.join(CHECKED)} fell by more than {TOLERANCE:.0%}")
    return 1 if regressions else 0


def _short_ratios(name: str) -> dict[str, float]:
    results = PARTS[name](True, print)
    results.write(SHORT_RESULTS)
    return results.ratios


if __name__ == "__main__":
    sys.exit(main())
