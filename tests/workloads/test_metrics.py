"""A real Prometheus, which scrapes the real Triton: what the dashboard asks for, and what the alerts say.

The tests run in order, the last one ends Triton. One thing stands in: kube-state-metrics, which needs a cluster. A
small HTTP server exports, under their names, the two figures of it that are asked for.
"""

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from mnist.errors import ServerError
from mnist.inference import Pixels, ServedModel
from mnist.storage import Storage
from pipeline.components.scaling import QUEUE_METRIC, QUEUE_TARGET_US
from pipeline.monitoring.alerts import DAY, Alert, alerts, rule_groups
from tests.dashboard import queries
from tests.load import BLANK, Load
from tests.support import ROOT
from tests.workloads.prometheus import Prometheus, eventually, needs_prometheus, running_prometheus, serving_metrics
from tests.workloads.triton import MODEL, Triton, running_triton

pytestmark = needs_prometheus
NAMESPACE = "job-ns"
RUN_AGE_DAYS = 3
SIXTEEN: Pixels = BLANK.repeat(16, axis=0)  # take longer than the client below waits
QUERIES = queries(namespace=NAMESPACE, model=MODEL, __rate_interval="10s")


def limited(max_latency_ms: float, max_run_age_days: int) -> tuple[Alert, ...]:
    return alerts(
        namespace=NAMESPACE,
        model=MODEL,
        last_job="client",
        max_latency_ms=max_latency_ms,
        max_run_age_days=max_run_age_days,
    )


GENEROUS, STRICT = limited(5000.0, RUN_AGE_DAYS + 1), limited(0.001, RUN_AGE_DAYS - 1)


def write_rules(path: Path, of: tuple[Alert, ...]) -> Path:
    """The rules, told without waiting."""
    content = rule_groups(of, NAMESPACE)
    for rule in content["groups"][0]["rules"]:
        rule["for"] = "0s"
    path.write_text(yaml.safe_dump(content))
    return path


@dataclass(frozen=True)
class Watched:
    prometheus: Prometheus
    triton: Triton
    generous: Path
    strict: Path


@pytest.fixture(scope="module")
def watched(exported_storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    directory = tmp_path_factory.mktemp("prometheus")
    generous = write_rules(directory / "generous.yaml", GENEROUS)
    strict = write_rules(directory / "strict.yaml", STRICT)
    job = f'{{namespace="{NAMESPACE}",job_name="client"}} {time.time() - RUN_AGE_DAYS * DAY:.0f}'
    figures = "".join(f"{name}{job}\n" for name in ("kube_job_created", "kube_job_status_completion_time"))
    with (
        running_triton(exported_storage.root, directory / "triton.log") as triton,
        serving_metrics(figures) as state_metrics,
    ):
        pod = {"namespace": NAMESPACE, "pod": "triton-0"}  # as discovery finds a pod's
        targets = {triton.metrics.removeprefix("http://"): pod, state_metrics: {}}
        with running_prometheus(directory, targets, [generous, strict]) as prometheus:
            yield Watched(prometheus, triton, generous, strict)


@pytest.fixture
def load(watched: Watched) -> Iterator[Load]:
    with Load(watched.triton.endpoint, MODEL, pause=0.01) as running:
        yield running


@pytest.mark.usefixtures("load")
@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_every_query_of_the_dashboard_has_data_under_load(watched: Watched, query: str) -> None:
    assert watched.prometheus.awaited(query), "its panel would be empty"


@pytest.mark.usefixtures("load")
@pytest.mark.parametrize("alert", STRICT, ids=[alert.name for alert in STRICT])
def test_what_every_alert_measures_has_data_under_load(watched: Watched, alert: Alert) -> None:
    assert watched.prometheus.awaited(alert.measure), "it could never fire"


@pytest.mark.usefixtures("load")
def test_the_adapters_rule_gives_the_autoscaler_a_figure(watched: Watched) -> None:
    """docs/how-to/scale.md's; the adapter puts a namespace's pods in the place of <<…>>."""
    page = (ROOT / "docs" / "how-to" / "scale.md").read_text(encoding="utf-8")
    [rule] = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])["rules"]
    assert rule["name"]["as"] == QUEUE_METRIC, "what the autoscaler asks for"
    query = rule["metricsQuery"].replace("<<.LabelMatchers>>", f'namespace="{NAMESPACE}",pod=~"triton-0"')
    query = query.replace("<<.GroupBy>>", "pod").replace("[1m]", "[10s]")
    [waiting] = watched.prometheus.awaited(query)
    assert 0 < waiting < QUEUE_TARGET_US, "microseconds, and few: one client waits for no other"


@pytest.mark.usefixtures("load")
def test_the_dashboards_figures_are_in_their_units(watched: Watched) -> None:
    shown = {name: watched.prometheus.awaited(query) for name, query in QUERIES.items()}
    assert shown["Tritons that serve: Tritons"] == [1], "there is one"
    assert shown["Failed requests: of all requests"] == [0], "none failed yet"
    assert 0 < shown["Latency: p50"][0] <= shown["Latency: p99"][0] < 5000, "milliseconds"
    assert shown["Requests: {{model}} version {{version}}"][0] > 1, "a second"
    assert 1 <= shown["Batch size: {{model}}"][0] <= 16, "images"
    for name in ("CPU at {{instance}}", "memory at {{instance}}"):
        assert 0 < shown[f"CPU and memory: {name}"][0] <= 1, "a share"
    parts = sum(shown[f"Where a request's time goes: {part}"][0] for part in ("queue", "input", "compute", "output"))
    assert 0.1 < parts / 1000 < 5000, "microseconds"
    age = shown["Since the pipeline's last success: client"][0]
    assert RUN_AGE_DAYS * DAY <= age < RUN_AGE_DAYS * DAY + 600, "seconds"


def test_alerts_fire_beyond_their_limits_and_not_before(watched: Watched, load: Load) -> None:
    load.go_on(100)
    wanted = {"TritonSlow", "PipelineNotRun"}
    eventually(lambda: watched.prometheus.firing(watched.strict).keys() == wanted, "both are beyond the strict limits")
    assert watched.prometheus.firing(watched.generous) == {}, "nothing is beyond the generous ones"
    told = watched.prometheus.firing(watched.strict)["TritonSlow"]
    assert re.fullmatch(r"p99 is [\d.]+m? ms inside Triton, maxLatencyMs is 0.001 ms\.", told), "with the figure"
    load.assert_none_failed()


@pytest.mark.usefixtures("load")
def test_requests_that_fail_sound_the_alarm(watched: Watched) -> None:
    with ServedModel(watched.triton.endpoint, MODEL, timeout=2e-3) as hasty:
        for _ in range(200):
            with contextlib.suppress(ServerError):  # Triton counts those that it was working on: CANCELED
                hasty.infer(SIXTEEN)
    eventually(lambda: watched.prometheus.firing(watched.generous).keys() == {"TritonErrors"}, "more than 1 % failed")
    [share] = watched.prometheus.values(QUERIES["Failed requests: of all requests"])
    assert 0 < share < 1, "the dashboard shows it, too"
    assert sum(watched.prometheus.values(QUERIES["Errors: {{reason}}"])) > 0, "and when"


def test_a_stopped_triton_sounds_the_alarm(watched: Watched) -> None:
    os.kill(watched.triton.process.pid, signal.SIGTERM)
    watched.triton.process.wait(timeout=30)
    eventually(lambda: "TritonDown" in watched.prometheus.firing(watched.generous), "nothing serves")
