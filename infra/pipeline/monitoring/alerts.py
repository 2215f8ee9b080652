"""The alerts: what each one measures, and when it fires. docs/how-to/monitoring.md says what to do then."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ERROR_SHARE = 0.01  # of requests that may fail
WINDOW = "5m"
DAY = 24 * 60 * 60


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One rule.

    Attributes:
        measure: PromQL for what is watched; it has a value while all is well, too.
        fires: PromQL that has a value when it is not.
        lasting: For how long, before anybody is told.
    """

    name: str
    measure: str
    fires: str
    lasting: str
    severity: str
    summary: str
    description: str


def alerts(
    *, namespace: str, model: str, last_job: str, max_latency_ms: float, max_run_age_days: int
) -> tuple[Alert, ...]:
    """The alerts of one pipeline.

    Args:
        namespace, model: As Prometheus' labels name them.
        last_job: The Job whose success is the pipeline's.
        max_latency_ms: p99 that is too slow from here on; 0: none is, and no alert asks.
        max_run_age_days: From here on the last success is too long ago.
    """
    served = f'namespace="{namespace}",model="{model}"'
    slow = (_slow(model, served, max_latency_ms),) if max_latency_ms else ()
    job = f'namespace="{namespace}",job_name="{last_job}"'
    return (_down(namespace, model, served), _failing(model, served), *slow, _not_run(last_job, job, max_run_age_days))


def rule_groups(of: Sequence[Alert], namespace: str) -> dict[str, Any]:
    """As a rule file of Prometheus holds them, and a PrometheusRule's spec; the namespace says whom to tell."""
    rules = [
        {
            "alert": alert.name,
            "expr": alert.fires,
            "for": alert.lasting,
            "labels": {"severity": alert.severity, "namespace": namespace},
            "annotations": {"summary": alert.summary, "description": alert.description},
        }
        for alert in of
    ]
    return {"groups": [{"name": "mnist-triton", "rules": rules}]}


def _down(namespace: str, model: str, served: str) -> Alert:
    measure = f"nv_inference_count{{{served}}}"
    return Alert(
        name="TritonDown",
        measure=measure,
        fires=f"absent({measure})",
        lasting="2m",
        severity="critical",
        summary=f"No Triton in {namespace} serves {model}.",
        description="No pod runs, none has loaded the model, or Prometheus does not reach them.",
    )


def _failing(model: str, served: str) -> Alert:
    failed = f"sum(rate(nv_inference_request_failure{{{served}}}[{WINDOW}]))"
    succeeded = f"sum(rate(nv_inference_request_success{{{served}}}[{WINDOW}]))"
    measure = f"{failed} / ({failed} + {succeeded})"
    return Alert(
        name="TritonErrors",
        measure=measure,
        fires=f"{measure} > {ERROR_SHARE:g}",
        lasting="5m",
        severity="warning",
        summary=f"Requests to {model} fail.",
        description=f"{{{{ $value | humanizePercentage }}}} of the last {WINDOW}, where {ERROR_SHARE:.0%} may.",
    )


def _slow(model: str, served: str, limit: float) -> Alert:
    # Quantiles of several pods cannot be brought together: the slowest pod counts.
    measure = f'max(nv_inference_request_summary_us{{{served},quantile="0.99"}}) / 1000'
    return Alert(
        name="TritonSlow",
        measure=measure,
        fires=f"{measure} > {limit:g}",
        lasting="5m",
        severity="warning",
        summary=f"Requests to {model} are slow.",
        description=f"p99 is {{{{ $value | humanize }}}} ms inside Triton, maxLatencyMs is {limit:g} ms.",
    )


def _not_run(last_job: str, job: str, days: int) -> Alert:
    # A Job that runs anew, or failed, has no such time: hence the look back at what its predecessors had.
    finished = f"kube_job_status_completion_time{{{job}}}[{days}d]"
    measure = f"time() - max(max_over_time({finished}))"
    never = f"absent_over_time({finished}) and on () kube_job_created{{{job}}}"
    return Alert(
        name="PipelineNotRun",
        measure=measure,
        fires=f"{measure} > {days * DAY} or ({never})",
        lasting="1h",
        severity="warning",
        summary=f"The pipeline has not succeeded for {days} days.",
        description=f"Job {last_job} is its end; the figures are kube-state-metrics'.",
    )
