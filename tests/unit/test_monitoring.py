"""What is declared for Prometheus and Grafana, against Pulumi's mocks; tests/workloads asks a real Prometheus."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.components.pods import selector
from pipeline.errors import ConfigurationError
from pipeline.monitoring.alerts import alerts
from pipeline.targets import kubernetes
from pipeline.targets.kubernetes import METRICS_CONFIG
from serving import launch
from tests.dashboard import dashboard, queries
from tests.declared import CLUSTER, Declared, declare
from tests.unit.test_settings import settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "monitoring.md"
ALERTS = {"TritonDown", "TritonErrors", "TritonSlow", "PipelineNotRun"}
CUSTOM = (":PodMonitor", ":PrometheusRule")
WIDTH = 24  # columns of Grafana's grid


@pytest.fixture(scope="module")
def operator() -> Iterator[Declared]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield declare(monkeypatch, monitoring="operator", maxLatencyMs="20")


def annotations(declared: Declared) -> dict[str, str]:
    """Triton's pods', as far as they are Prometheus'."""
    [deployment] = declared.of_type(":Deployment")
    found = deployment["spec"]["template"]["metadata"]["annotations"]
    return {name: value for name, value in found.items() if name.startswith("prometheus.io/")}


def config_maps(declared: Declared) -> dict[str, dict[str, Any]]:
    return {entry["metadata"]["name"]: entry for entry in declared.of_type(":ConfigMap")}


def rules(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in spec["groups"] for rule in group["rules"]}


def test_by_default_annotations_say_where_to_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    default = declare(monkeypatch)
    wanted = {"prometheus.io/scrape": "true", "prometheus.io/port": "8002", "prometheus.io/path": "/metrics"}
    assert annotations(default) == wanted, "as the usual scrape configurations read them"
    assert set(config_maps(default)) == {"triton-dashboard", "triton-alerts"}, "for Grafana and for Prometheus"
    assert [kind for kind in CUSTOM if default.of_type(kind)] == [], "not every cluster knows the operator's kinds"


def test_with_none_nothing_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    none = declare(monkeypatch, monitoring="none")
    assert annotations(none) == {}, "nobody scrapes it by accident"
    assert config_maps(none) == {}, "neither dashboard nor alerts"
    assert [kind for kind in CUSTOM if none.of_type(kind)] == [], "nor the operator's kinds"


def test_without_triton_there_is_nothing_to_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config_maps(declare(monkeypatch, runThrough="export")) == {}, "the alert would fire for ever"


def test_with_the_operator_its_own_kinds_stand_in_for_annotations_and_rule_file(operator: Declared) -> None:
    assert annotations(operator) == {}, "or it would be scraped twice"
    assert set(config_maps(operator)) == {"triton-dashboard"}, "Grafana's is the same"
    for kind in CUSTOM:
        [made] = operator.of_type(kind)
        assert made["apiVersion"] == "monitoring.coreos.com/v1", kind
        assert made["metadata"]["namespace"] == "job-ns", f"{kind}: beside what it watches"


def test_the_pod_monitor_finds_tritons_pods_and_their_metrics(operator: Declared) -> None:
    [monitor], [deployment] = operator.of_type(":PodMonitor"), operator.of_type(":Deployment")
    template = deployment["spec"]["template"]
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert wanted == selector("triton"), "by the labels that never change"
    assert wanted.items() <= template["metadata"]["labels"].items(), "the pods have them"
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
    assert ports[endpoint["port"]] == 8002, "the port is the container's, by name"
    assert set(monitor["spec"]) == {"selector", "podMetricsEndpoints"}, "its own namespace is the default"


def test_the_operators_rules_are_those_of_the_rule_file(monkeypatch: pytest.MonkeyPatch, operator: Declared) -> None:
    [made] = operator.of_type(":PrometheusRule")
    file = config_maps(declare(monkeypatch, maxLatencyMs="20"))["triton-alerts"]["data"]["rules.yaml"]
    assert made["spec"] == yaml.safe_load(file), "whoever reads them"


def test_the_operator_is_refused_where_the_cluster_does_not_know_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "connect", lambda _context: replace(CLUSTER, api_groups=frozenset({"apps"})))
    with pytest.raises(ConfigurationError, match=r"monitoring\.coreos\.com: install .*, or set annotations"):
        kubernetes.KubernetesTarget(settings(monitoring="operator"), "dev")


def test_nobody_else_reads_the_metrics_unless_a_namespace_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def into_triton(**changes: str) -> list[dict[str, Any]]:
        policies = declare(monkeypatch, None, **changes).of_type(":NetworkPolicy")
        [found] = [policy["spec"]["ingress"] for policy in policies if policy["metadata"]["name"] == "triton"]
        return list(found)

    usual = into_triton()
    *others, added = into_triton(monitoringNamespace="monitoring")
    assert others == usual and len(usual) == 1, "the clients' rule stays as it is"
    assert [port["port"] for port in added["ports"]] == [8002], "metrics, not inference"
    namespaces = [peer["namespaceSelector"]["matchLabels"] for peer in added["from"]]
    assert namespaces == [{"kubernetes.io/metadata.name": "monitoring"}], "that one"


def test_grafanas_sidecar_finds_the_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    found = config_maps(declare(monkeypatch))["triton-dashboard"]
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1", "the label it looks for"
    assert list(found["data"]) == ["triton.json"], "Grafana reads files that end in .json"


def test_every_panel_has_a_place_a_unit_and_a_query() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels), "Grafana tells them apart by their ids"
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        title, at = panel["title"], panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= WIDTH, f"{title}: it must not lie on another one"
        taken |= cells
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, f"{title}: yours, by its variable"
        assert panel["fieldConfig"]["defaults"]["unit"], f"{title}: figures have units"
        assert panel["targets"] and all(target["expr"] for target in panel["targets"]), f"{title}: it would be empty"


def test_the_dashboard_uses_no_variable_that_it_does_not_define() -> None:
    known = {entry["name"] for entry in dashboard()["templating"]["list"]} | {"__rate_interval"}
    used = {name for query in queries().values() for name in re.findall(r"\$\{?(\w+)", query)}
    assert used <= known, "Grafana would send it to Prometheus as it is"


@pytest.mark.parametrize(
    "metric",
    ["success", "failure", "queue_duration", "compute_infer_duration", "exec_count", "cpu_utilization", "summary_us"],
)
def test_the_dashboard_shows(metric: str) -> None:
    assert any(metric in query for query in queries().values()), "what there is to see of a server"


def test_the_rules_have_the_settings_limits_model_and_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"maxLatencyMs": "12.5", "maxRunAgeDays": "3", "modelName": "mine", "namespace": "elsewhere"}
    file = config_maps(declare(monkeypatch, None, **changes))["triton-alerts"]["data"]["rules.yaml"]
    made = rules(yaml.safe_load(file))
    assert set(made) == ALERTS, "as documented"
    assert "> 12.5" in made["TritonSlow"]["expr"], "maxLatencyMs"
    assert "maxLatencyMs is 12.5 ms" in made["TritonSlow"]["annotations"]["description"], "whoever is told knows why"
    assert f"> {3 * 24 * 60 * 60} " in made["PipelineNotRun"]["expr"] and "[3d]" in made["PipelineNotRun"]["expr"]
    for name, rule in made.items():
        assert 'namespace="elsewhere"' in rule["expr"], f"{name}: other pipelines are not its business"
        assert ('model="mine"' in rule["expr"]) == (name != "PipelineNotRun"), f"{name}: nor other models"
        assert rule["labels"]["severity"] in ("warning", "critical"), f"{name}: somebody is told"


def test_without_a_limit_no_latency_is_too_high(monkeypatch: pytest.MonkeyPatch) -> None:
    file = config_maps(declare(monkeypatch))["triton-alerts"]["data"]["rules.yaml"]
    assert set(rules(yaml.safe_load(file))) == ALERTS - {"TritonSlow"}, "maxLatencyMs is 0: any will do"


def test_the_page_says_of_every_alert_what_to_do() -> None:
    made = alerts(namespace="n", model="m", last_job="j", max_latency_ms=1, max_run_age_days=1)
    page = PAGE.read_text(encoding="utf-8")
    assert [alert.name for alert in made if f"`{alert.name}`" not in page] == [], "it comes at night"


@pytest.mark.parametrize(("image", "flags"), [("ngc", METRICS_CONFIG), ("registry.example.org/triton:22.12", ())])
def test_nvidias_image_measures_quantiles_as_ours_does(
    monkeypatch: pytest.MonkeyPatch, image: str, flags: tuple[str, ...]
) -> None:
    [deployment] = declare(monkeypatch, tritonImage=image).of_type(":Deployment")
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert tuple(flag for flag in container["args"] if "metrics-config" in flag) == flags, "older ones do not know it"
    assert tuple(f"--metrics-config={setting}" for setting in launch.QUANTILES) == METRICS_CONFIG, "the same quantiles"
