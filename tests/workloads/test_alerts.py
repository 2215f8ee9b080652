"""The alerts as the stack declares them, on series made up for promtool: when they fire, and when they do not."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.declared import declare
from tests.workloads.prometheus import needs_prometheus, promtool

pytestmark = needs_prometheus
LIMITS = {"maxLatencyMs": "20", "maxRunAgeDays": "7"}
SERVED = 'namespace="job-ns",model="resnet18_mnist"'
COUNT = f"nv_inference_count{{{SERVED}}}"
SUCCEEDED, FAILED = f"nv_inference_request_success{{{SERVED}}}", f"nv_inference_request_failure{{{SERVED}}}"
P99 = f'nv_inference_request_summary_us{{{SERVED},quantile="0.99"}}'
JOB = '{namespace="job-ns",job_name="client"}'
FINISHED, CREATED = f"kube_job_status_completion_time{JOB}", f"kube_job_created{JOB}"
DAY = 24  # hours
MODEL_LABEL, JOB_LABEL = {"model": "resnet18_mnist"}, {"job_name": "client"}


@dataclass(frozen=True)
class Case:
    """After so many units (of samples and evaluations) this alert fires, and no other; time begins at 0.

    Attributes:
        series: Name → samples, in promtool's notation.
        labels: The alert's, beside those that all have.
    """

    what: str
    unit: str
    at: int
    series: dict[str, str]
    fires: str | None = None
    labels: dict[str, str] = field(default_factory=dict)


def minutes(what: str, at: int, series: dict[str, str], fires: str | None = None) -> Case:
    return Case(what, "m", at, {COUNT: "0+60x30", **series}, fires)


def hours(what: str, at: int, series: dict[str, str], fires: str | None = None, **labels: str) -> Case:
    return Case(what, "h", at, {COUNT: "0+60x300", **series}, fires, labels)


FAILED_SINCE_DAY_3 = {FINISHED: f"0x{3 * DAY} stale", CREATED: f"0x{3 * DAY} {3 * DAY * 3600}x300"}
CASES = (
    minutes("all is well", 20, {SUCCEEDED: "0+1000x30", FAILED: "0+5x30", P99: "15000x30"}),
    minutes("nobody asks", 20, {SUCCEEDED: "70x30", FAILED: "0x30", P99: "NaN " * 30}),
    Case("nothing serves", "m", 3, {}, "TritonDown", MODEL_LABEL),
    Case("nothing has served for a minute", "m", 6, {COUNT: "0+60x4 stale"}),
    Case("nothing has served for three minutes", "m", 8, {COUNT: "0+60x4 stale"}, "TritonDown", MODEL_LABEL),
    minutes("2 % fail", 20, {SUCCEEDED: "0+980x30", FAILED: "0+20x30"}, "TritonErrors"),
    minutes("2 % fail, so far for three minutes", 3, {SUCCEEDED: "0+980x30", FAILED: "0+20x30"}),
    minutes("p99 is 25 ms", 20, {P99: "25000x30"}, "TritonSlow"),
    minutes("p99 is 25 ms, so far for three minutes", 3, {P99: "25000x30"}),
    hours("the last success was 6 days ago", 6 * DAY, {FINISHED: "0x300", CREATED: "0x300"}),
    hours("the last success was 8 days ago", 8 * DAY, {FINISHED: "0x300", CREATED: "0x300"}, "PipelineNotRun"),
    hours("it failed, 6 days after the last success", 6 * DAY, FAILED_SINCE_DAY_3),
    hours("it failed, 8 days after the last success", 8 * DAY, FAILED_SINCE_DAY_3, "PipelineNotRun"),
    hours("it failed, 11 days after", 11 * DAY, FAILED_SINCE_DAY_3, "PipelineNotRun", **JOB_LABEL),
    hours("it never succeeded", 2, {CREATED: "0x300"}, "PipelineNotRun", **JOB_LABEL),
    hours("it runs for the first time", 0, {CREATED: "0x300"}),
    hours("there is no kube-state-metrics", 11 * DAY, {}),
)


@pytest.fixture(scope="module")
def declared() -> str:
    """The rule file's content."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        maps = declare(monkeypatch, None, **LIMITS).of_type(":ConfigMap")
    [content] = [entry["data"]["rules.yaml"] for entry in maps if "rules.yaml" in entry["data"]]
    return str(content)


def test_promtool_accepts_the_declared_rules(declared: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(declared)
    assert "SUCCESS: 4 rules found" in promtool("check", "rules", path), "with its linter's consent"


@pytest.mark.parametrize("case", CASES, ids=[case.what for case in CASES])
def test_an_alert_fires_when_it_should_and_no_other_does(declared: str, tmp_path: Path, case: Case) -> None:
    content = yaml.safe_load(declared)
    rules = content["groups"][0]["rules"]
    for rule in rules:
        del rule["annotations"]  # promtool would compare the text, figures and all
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(content))
    expected = [
        {
            "eval_time": f"{case.at}{case.unit}",
            "alertname": rule["alert"],
            "exp_alerts": [{"exp_labels": {**rule["labels"], **case.labels}}] if rule["alert"] == case.fires else [],
        }
        for rule in rules
    ]
    series = [{"series": name, "values": values} for name, values in case.series.items()]
    test = {"interval": f"1{case.unit}", "input_series": series, "alert_rule_test": expected}
    suite = {"rule_files": ["rules.yaml"], "evaluation_interval": f"1{case.unit}", "tests": [test]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(suite))
    promtool("test", "rules", tmp_path / "test.yaml")
