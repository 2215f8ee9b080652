"""What every server is asked, and what came of it."""

import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from bench.errors import BenchError
from bench.figures import Medians, Rounds, add_round, medians
from bench.prepared import Exports, Say
from bench.serving.servers import Endpoint, Running, Server, log_tail, running
from bench.worker import Answer, Worker
from mnist.cpus import available_cpus

START_SECONDS, PATIENCE = 90.0, 2.0  # until a server serves; between two looks whether it still runs
MAX_DIFFERENCE = 1e-2  # of logits of size 10: a batch of another size is summed in another order
BATCH = 16  # the largest that Triton takes
IN_PROCESS = "in process"


@dataclass(frozen=True)
class Load:
    """So many requests in flight, each with so many images."""

    name: str
    concurrency: int
    batch: int = 1


SINGLES = tuple(Load(str(concurrency), concurrency) for concurrency in (1, 4, 16, 64))
BATCHES = Load("4_batches", 4, BATCH)
LOADS = (*SINGLES, BATCHES)


@dataclass(frozen=True)
class Alternative:
    """A model that is served, and the process that serves it."""

    endpoint: Endpoint
    server: Running


class Bench:
    """All servers at once, each idle while another is measured, and the one client."""

    def __init__(self, servers: list[Server], exports: Exports, stack: ExitStack) -> None:
        self.exports = exports
        started = [(server, stack.enter_context(running(server))) for server in servers]
        self.alternatives = {
            name: Alternative(endpoint, process)
            for server, process in started
            for name, endpoint in server.endpoints.items()
        }
        self._client = stack.enter_context(Worker("bench.serving.client"))
        self._in_process: dict[str, Worker] = {}
        for name, alternative in self.alternatives.items():
            self._verify(name, alternative)

    def add_in_process(self, export: str, stack: ExitStack) -> None:
        arguments = (self.exports.model(export), self.exports.pixels)
        self._in_process[f"{IN_PROCESS} {export}"] = stack.enter_context(Worker("bench.serving.inprocess", *arguments))

    @property
    def names(self) -> list[str]:
        return [*self.alternatives, *self._in_process]

    def _verify(self, name: str, alternative: Alternative) -> None:
        """Wait until it answers, and compare its logits with ONNX Runtime's."""
        export = alternative.endpoint.export
        expected = str(self.exports.logits(export)) if export else None
        for batch in (1, BATCH):
            deadline = time.monotonic() + START_SECONDS
            while "unanswered" in (answer := self._ask(alternative, batch, expected=expected, patience=PATIENCE)):
                if time.monotonic() > deadline or not alternative.server.is_alive():
                    raise BenchError(f"{name} does not serve: {log_tail(alternative.server.log)}")
            if answer["difference"] > MAX_DIFFERENCE:
                raise BenchError(f"{name} answers with other logits than ONNX Runtime, by {answer['difference']:.1e}")

    def _ask(self, alternative: Alternative, batch: int, **request: object) -> Answer:
        endpoint = asdict(alternative.endpoint)
        endpoint.pop("export")
        return self._client.ask(target=endpoint, batch=batch, pixels=str(self.exports.pixels), **request)

    def measure(self, name: str, load: Load, seconds: float) -> dict[str, float]:
        """Requests a second, latencies, and the server's CPU time for a request, each named after the load."""
        if name in self._in_process:
            # With one thread a core there is nothing that more requests in flight could gain.
            threads = min(load.concurrency, available_cpus())
            found = self._in_process[name].ask(threads=threads, batch=load.batch, seconds=seconds)
        else:
            alternative = self.alternatives[name]
            before = alternative.server.cpu_seconds()
            closed = {"concurrency": load.concurrency, "seconds": seconds}
            found = self._ask(alternative, load.batch, load=closed)
            used = alternative.server.cpu_seconds() - before
            found["server_cpu_ms"] = used / found.pop("answers") * 1e3
        return {f"{figure}_at_{load.name}": value for figure, value in found.items()}

    def measure_open(self, name: str, rate: float, seconds: float) -> dict[str, float]:
        found = self._ask(self.alternatives[name], 1, load={"rate": rate, "seconds": seconds})
        return {f"{figure}_at_half_load": value for figure, value in found.items()}


def measure_in_turns(bench: Bench, rounds: Rounds, count: int, seconds: float, say: Say) -> None:
    """Every load on every alternative, one after the other, so many times."""
    for number in range(count):
        for load in LOADS:
            for name in bench.names:
                add_round(rounds, name, bench.measure(name, load, seconds))
        say(f"serving: round {number + 1} of {count}")


def measure_half_load(bench: Bench, rounds: Rounds, count: int, seconds: float, say: Say) -> None:
    """Single images at random times, half as many a second as the alternative answered at most."""
    most = highest(medians(rounds))
    for number in range(count):
        for name in bench.alternatives:
            add_round(rounds, name, bench.measure_open(name, most[name] / 2, seconds))
        say(f"serving: half load, round {number + 1} of {count}")


def highest(found: Medians) -> dict[str, float]:
    """Single-image requests a second at the best concurrency."""
    return {
        name: max(figures[f"requests_per_second_at_{load.name}"] for load in SINGLES) for name, figures in found.items()
    }
