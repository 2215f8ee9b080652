"""What Prometheus and Grafana are told: where Triton's metrics are, what to show, when to sound the alarm."""

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
import yaml
from pulumi_kubernetes.apiextensions import CustomResource

from pipeline.components.pods import labels, selector
from pipeline.monitoring import DASHBOARD
from pipeline.monitoring.alerts import alerts, rule_groups

OPERATOR_GROUP = "monitoring.coreos.com"
GRAFANA = {"grafana_dashboard": "1"}  # the label that Grafana's sidecar looks for
SCRAPE_INTERVAL = "15s"


@dataclass(frozen=True, kw_only=True)
class MonitoringArgs:
    """What is watched.

    Attributes:
        operator: The Prometheus operator reads its own objects; otherwise annotations at the pods and a ConfigMap.
        server: The workload whose metrics are read.
        last_job: The Job whose success is the pipeline's.
        max_latency_ms: As the client's gate; 0: any.
        max_run_age_days: Days without a successful run before an alert.
    """

    namespace: str
    operator: bool
    server: str
    model_name: str
    last_job: str
    max_latency_ms: float
    max_run_age_days: int


class Monitoring(pulumi.ComponentResource):
    """A dashboard and alerts; with the operator, where to scrape, too."""

    def __init__(self, name: str, args: MonitoringArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mnist:pipeline:Monitoring", name, None, opts)
        self.name, self.args = name, args
        self._child = pulumi.ResourceOptions(
            parent=self,
            delete_before_replace=True,  # the names are fixed
            depends_on=opts.depends_on if opts is not None else None,
        )
        self._config_map("dashboard", {f"{args.server}.json": DASHBOARD.read_text(encoding="utf-8")}, GRAFANA)
        rules = rule_groups(
            alerts(
                namespace=args.namespace,
                model=args.model_name,
                last_job=args.last_job,
                max_latency_ms=args.max_latency_ms,
                max_run_age_days=args.max_run_age_days,
            ),
            args.namespace,
        )
        if args.operator:
            self._operators("PrometheusRule", rules)
            self._operators("PodMonitor", self._pod_monitor())
        else:
            self._config_map("alerts", {"rules.yaml": yaml.safe_dump(rules, sort_keys=False, width=1000)})
        self.register_outputs({"name": name})

    def _meta(self, name: str, extra: dict[str, str] | None = None) -> k8s.meta.v1.ObjectMetaArgs:
        return k8s.meta.v1.ObjectMetaArgs(
            name=name, namespace=self.args.namespace, labels={**labels(name, "monitoring"), **(extra or {})}
        )

    def _config_map(self, what: str, data: dict[str, str], extra: dict[str, str] | None = None) -> None:
        k8s.core.v1.ConfigMap(
            f"{self.name}-{what}",
            metadata=self._meta(f"{self.args.server}-{what}", extra),
            data=data,
            opts=self._child,
        )

    def _operators(self, kind: str, spec: dict[str, Any]) -> None:
        CustomResource(
            f"{self.name}-{kind.lower()}",
            api_version=f"{OPERATOR_GROUP}/v1",
            kind=kind,
            metadata=self._meta(self.args.server),
            spec=spec,
            opts=self._child,
        )

    def _pod_monitor(self) -> dict[str, Any]:
        return {
            "selector": {"matchLabels": selector(self.args.server)},
            "podMetricsEndpoints": [{"port": "metrics", "path": "/metrics", "interval": SCRAPE_INTERVAL}],
        }
