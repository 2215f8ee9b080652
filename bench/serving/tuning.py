"""Instances, threads, queue delay and preferred batch sizes of Triton, in turns: what ServingConfig's rule rests on."""

from contextlib import ExitStack

from bench import prepared
from bench.figures import Ratio
from bench.prepared import Say
from bench.results import Recorder, Results
from bench.serving import servers
from bench.serving.loads import Bench, measure_half_load, measure_in_turns
from bench.serving.repositories import Variant, shipped
from mnist.cpus import available_cpus

ROUNDS, SECONDS, HALF_LOAD_SECONDS = 5, 0.6, 1.0
SHORT_ROUNDS, SHORT_SECONDS = 1, 0.5


def variants() -> list[Variant]:
    """The shipped one, and one thing changed of it at a time."""
    ours = shipped()
    base = Variant(ours.instances, ours.threads, ours.queue_delay_us)
    cpus = available_cpus()
    shapes = {(1, cpus), (cpus, 1), (1, 1), (2 * cpus, 1), (cpus, cpus)} - {(base.instances, base.threads)}
    found = [base, *(Variant(*shape, base.delay_us) for shape in sorted(shapes))]
    found += [Variant(base.instances, base.threads, delay) for delay in (0, 100, 500, 2000) if delay != base.delay_us]
    found.append(Variant(base.instances, base.threads, base.delay_us, (2, 4, 8)))
    return [*found, Variant(1, cpus, base.delay_us, spins=True)]


def run(short: bool, say: Say) -> Results:
    exports = prepared.exports(say)
    recorder = Recorder("tuning", "python -m bench tuning")
    tried = variants()
    recorder.facts["shipped"] = str(tried[0])
    with ExitStack() as stack:
        say(f"tuning: starting {len(tried)} Tritons")
        # The default precision alone: what holds for it holds the more for a lighter model.
        bench = Bench([servers.variant(one, exports, "fp32") for one in tried], exports, stack)
        count, seconds = (SHORT_ROUNDS, SHORT_SECONDS) if short else (ROUNDS, SECONDS)
        measure_in_turns(bench, recorder.rounds, count, seconds, say)
        if not short:
            measure_half_load(bench, recorder.rounds, count, HALF_LOAD_SECONDS, say)
    first, *others = recorder.rounds
    return recorder.results(
        [Ratio(figure, first, other) for other in others for figure in ("requests_per_second_at_16",)]
    )
