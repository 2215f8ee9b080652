"""Serving: the same model files behind different servers, in turns, asked by one client."""

from contextlib import ExitStack

from bench import prepared
from bench.figures import Ratio
from bench.prepared import Say
from bench.results import Recorder, Results
from bench.serving import servers, witness
from bench.serving.loads import BATCHES, LOADS, Bench, measure_half_load, measure_in_turns

ROUNDS, SECONDS, HALF_LOAD_SECONDS = 3, 0.8, 1.5
SHORT_ROUNDS, SHORT_SECONDS = 3, 0.4
OURS = {"fp32": "ours fp32", "int8": "ours int8"}
REFERENCES = ("reference config fp32", "reference config unfolded")


def run(short: bool, say: Say) -> Results:
    exports = prepared.exports(say)
    recorder = Recorder("serving", "python -m bench serving")
    if not servers.MLSERVER.exists():
        recorder.missing["mlserver"] = f"not installed: `make bench` installs it from {servers.MLSERVER_LIST}"
    with ExitStack() as stack:
        say("serving: starting all servers")
        bench = Bench(servers.all_servers(exports), exports, stack)
        for export in servers.SERVED:
            bench.add_in_process(export, stack)
        count, seconds = (SHORT_ROUNDS, SHORT_SECONDS) if short else (ROUNDS, SECONDS)
        measure_in_turns(bench, recorder.rounds, count, seconds, say)
        if not short:
            measure_half_load(bench, recorder.rounds, count, HALF_LOAD_SECONDS, say)
            witness.add(bench, recorder, say)
    return recorder.results(wanted(list(recorder.rounds)))


def wanted(names: list[str]) -> list[Ratio]:
    """Ours to the reference configuration, and to each alternative that serves the same model."""
    found = [Ratio("requests_per_second_at_16", ours, reference) for ours in OURS.values() for reference in REFERENCES]
    for export, ours in OURS.items():
        for name in alternatives(names, export):
            found += [Ratio(f"requests_per_second_at_{load.name}", ours, name) for load in (*LOADS[1:-1], BATCHES)]
            found.append(Ratio("p50_ms_at_1", ours, name, less_is_better=True))
    return found


def alternatives(names: list[str], export: str) -> list[str]:
    """Servers of others with this model."""
    return [name for name in names if name.endswith(f" {export}") and not name.startswith(("ours", "in ", "reference"))]
