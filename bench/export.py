"""The exported model: sizes, parity, accuracy and speed of three exports in process, on one thread, in turns."""

import json
from contextlib import ExitStack

from bench import prepared
from bench.figures import Ratio, add_round
from bench.prepared import EXPORTS, Say
from bench.results import Recorder, Results
from bench.worker import Worker

BATCHES = (1, 16)  # the smallest and the largest that Triton runs
ROUNDS, SECONDS = 9, 0.7
SHORT_ROUNDS, SHORT_SECONDS = 3, 0.4
PAIRS = (("fp32", "unfolded"), ("int8", "fp32"))


def run(short: bool, say: Say) -> Results:
    exports = prepared.exports(say)
    recorder = Recorder("export", "python -m bench export")
    recorder.facts.update(json.loads(exports.report.read_text(encoding="utf-8")))
    rounds, seconds = (SHORT_ROUNDS, SHORT_SECONDS) if short else (ROUNDS, SECONDS)
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker("bench.serving.inprocess", exports.model(name), exports.pixels))
            for name in EXPORTS
        }
        for number in range(rounds):
            for batch in BATCHES:
                for name, worker in workers.items():
                    answer = worker.ask(threads=1, batch=batch, seconds=seconds)
                    figures = {
                        f"ms_batch_{batch}": answer["p50_ms"],
                        f"images_per_second_batch_{batch}": answer["requests_per_second"] * batch,
                    }
                    add_round(recorder.rounds, name, figures)
            say(f"export: round {number + 1} of {rounds}")
    return recorder.results([Ratio(f"images_per_second_batch_{batch}", *pair) for pair in PAIRS for batch in BATCHES])
