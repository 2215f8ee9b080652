"""docs/scaling.md, out of bench/results/scaling.json and bench/estimates.py."""

from collections.abc import Mapping
from pathlib import Path

from bench import ROOT, estimates
from bench.page import number, rendered, table
from bench.results import Results
from bench.serving.loads import BATCH

TEMPLATE = Path(__file__).with_name("scaling.md.j2")
PAGE = ROOT / "docs" / "scaling.md"
SINGLE, BATCHED = "16", "4_batches"  # loads
BATCH_SIZE, STEPS_PROCESSES = 256, "2 processes of 1 thread"
ASSUMPTIONS = (
    f"a pod of {estimates.POD_CPUS} CPUs (`tritonCpus`), used to {estimates.UTILISATION:.0%}: the rest is for p99, a "
    "lost node and a rollout",
    f"nodes of {estimates.NODE_CPUS} CPUs, {estimates.NODE_RESERVED_CPUS} of them for the node itself; CPUs like "
    "those measured",
    f"a request of {estimates.REQUEST_BYTES:,} bytes and an answer of {estimates.ANSWER_BYTES}: 28 × 28 floats, ten "
    "floats, and frames",
    f"clients on other machines, {estimates.CLIENTS_EACH:,.0f} requests a second each, connected to every replica of "
    f"their cluster, anew every {estimates.CONNECTION_SECONDS} s",
    f"images of {estimates.IMAGE_MB} MB, pulled by all nodes at once from a registry with "
    f"{estimates.REGISTRY_GBITS:.0f} Gbit/s",
    f"at most {estimates.MOST_ADDRESSES:,} replicas behind one name and {estimates.MOST_NODES:,} nodes a cluster "
    "([Kubernetes' own limits](https://kubernetes.io/docs/setup/best-practices/cluster-large/) are for any pods)",
)


def write(measured: Mapping[str, Results]) -> Path:
    PAGE.write_text(render(measured), encoding="utf-8")
    return PAGE


def render(measured: Mapping[str, Results]) -> str:
    from bench.scaling import TRAIN_IMAGES

    results = measured["scaling"]
    medians = results.medians
    return rendered(
        TEMPLATE,
        measured=measured,
        tables=Tables(results),
        per_cpu=per_cpu(results, SINGLE),
        per_cpu_batched=per_cpu(results, BATCHED) * BATCH,
        train_images=TRAIN_IMAGES,
        step_ms=BATCH_SIZE / medians[STEPS_PROCESSES]["images_per_second"] * 1e3,
        assumptions=ASSUMPTIONS,
    )


def per_cpu(results: Results, load: str) -> float:
    """Requests that one second of a CPU of Triton's answers."""
    return 1e3 / results.medians["1 replica"][f"server_cpu_ms_at_{load}"]


class Tables:
    def __init__(self, results: Results) -> None:
        self.results = results

    def replicas(self) -> str:
        rows = []
        for name in ("1 replica", "2 replicas"):
            found = self.results.medians[name]
            batches = found[f"requests_per_second_at_{BATCHED}"] * BATCH
            single = [
                found[f"{figure}_at_{SINGLE}"]
                for figure in ("requests_per_second", "p50_ms", "p99_ms", "server_cpu_ms")
            ]
            rows.append((name, *single, batches))
        return table(("", "requests/s", "p50 ms", "p99 ms", "Triton's CPU ms a request", "images/s in batches"), rows)

    def workers(self) -> str:
        rows = [(name, found["images_per_second"]) for name, found in self.results.medians.items() if "process" in name]
        return table(("", "images/s"), rows)

    def resources(self) -> str:
        rows = [
            (name.removesuffix(" resources"), *(found[step] for step in ("first up", "unchanged up", "destroy")))
            for name, found in self.results.medians.items()
            if name.endswith(" resources")
        ]
        return table(("resources", "first `up`, s", "unchanged `up`, s", "`destroy`, s"), rows)

    def needs(self) -> str:
        medians = self.results.medians
        today = medians["2 replicas"][f"requests_per_second_at_{SINGLE}"]
        found = estimates.needs(today, per_cpu(self.results, SINGLE), medians["a replica"]["memory_mb"])
        heads = ("as measured", "10 ×", "1,000 ×", "a million")
        rows: dict[str, list[float]] = {
            "requests/s": [need.requests for need in found],
            "replicas": [need.replicas for need in found],
            "nodes": [need.nodes for need in found],
            "clusters": [need.clusters for need in found],
            "memory of the replicas, GB": [need.memory_gb for need in found],
            "network, Gbit/s": [need.gbits for need in found],
            "client processes": [need.clients for need in found],
            "open connections": [need.connections for need in found],
            "new connections/s": [need.handshakes for need in found],
            "all nodes pull the image, s": [need.pull_seconds for need in found],
        }
        cells = [(name, *(number(value) for value in values)) for name, values in rows.items()]
        return table(("", *heads), cells)
