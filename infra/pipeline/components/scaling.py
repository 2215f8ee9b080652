"""Several pods of one server: where they run, how many, and how clients find each of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pulumi
import pulumi_kubernetes as k8s

from pipeline.components.pods import labels, selector

Metric = Literal["cpu", "queueTime"]
CUSTOM_METRICS_GROUP = "custom.metrics.k8s.io"
QUEUE_METRIC = "triton_queue_us_per_request"  # docs/how-to/scale.md has the adapter's rule that makes it
QUEUE_TARGET_US = 2000  # several times what a request waits where instances are free
CPU_TARGET = 0.7  # of a pod's limit; more, and p99 rises before another pod is there
CALM_SECONDS = 300  # without need for so long, before pods are taken away
SPREAD_OVER = ("kubernetes.io/hostname", "topology.kubernetes.io/zone")


@dataclass(frozen=True, kw_only=True)
class Replicas:
    """How many pods.

    Attributes:
        least, most: The same number: it is fixed.
        metric: What more are asked for by.
        cpus: A pod's limit.
    """

    least: int
    most: int
    metric: Metric
    cpus: int

    @property
    def varies(self) -> bool:
        return self.most > self.least


def headless_name(server: str) -> str:
    return f"{server}-replicas"


def autoscaler(
    name: str, meta: k8s.meta.v1.ObjectMetaArgs, replicas: Replicas, opts: pulumi.ResourceOptions
) -> k8s.autoscaling.v2.HorizontalPodAutoscaler:
    """Between `least` and `most` pods, as the metric asks for: up at once, down when it was calm for a while."""
    return k8s.autoscaling.v2.HorizontalPodAutoscaler(
        f"{name}-autoscaler",
        metadata=meta,
        spec=k8s.autoscaling.v2.HorizontalPodAutoscalerSpecArgs(
            scale_target_ref=k8s.autoscaling.v2.CrossVersionObjectReferenceArgs(
                api_version="apps/v1", kind="Deployment", name=name
            ),
            min_replicas=replicas.least,
            max_replicas=replicas.most,
            metrics=[_cpu(replicas.cpus) if replicas.metric == "cpu" else _queue_time()],
            behavior=k8s.autoscaling.v2.HorizontalPodAutoscalerBehaviorArgs(
                scale_up=k8s.autoscaling.v2.HPAScalingRulesArgs(stabilization_window_seconds=0),
                scale_down=k8s.autoscaling.v2.HPAScalingRulesArgs(stabilization_window_seconds=CALM_SECONDS),
            ),
        ),
        opts=opts,
    )


def _cpu(cpus: int) -> k8s.autoscaling.v2.MetricSpecArgs:
    # Not as a share: that would be of the request, of which a pod may use several times as much.
    average = k8s.autoscaling.v2.MetricTargetArgs(
        type="AverageValue", average_value=f"{int(1000 * cpus * CPU_TARGET)}m"
    )
    resource = k8s.autoscaling.v2.ResourceMetricSourceArgs(name="cpu", target=average)
    return k8s.autoscaling.v2.MetricSpecArgs(type="Resource", resource=resource)


def _queue_time() -> k8s.autoscaling.v2.MetricSpecArgs:
    source = k8s.autoscaling.v2.PodsMetricSourceArgs(
        metric=k8s.autoscaling.v2.MetricIdentifierArgs(name=QUEUE_METRIC),
        target=k8s.autoscaling.v2.MetricTargetArgs(type="AverageValue", average_value=str(QUEUE_TARGET_US)),
    )
    return k8s.autoscaling.v2.MetricSpecArgs(type="Pods", pods=source)


def headless(name: str, namespace: str, ports: Mapping[str, int], opts: pulumi.ResourceOptions) -> k8s.core.v1.Service:
    """Stands for every ready pod's address, by DNS: a connection to a Service's own would stick to one pod."""
    return k8s.core.v1.Service(
        f"{name}-replicas",
        metadata=k8s.meta.v1.ObjectMetaArgs(
            name=headless_name(name), namespace=namespace, labels=labels(name, "server")
        ),
        spec=k8s.core.v1.ServiceSpecArgs(
            cluster_ip="None",
            selector=selector(name),
            ports=[
                k8s.core.v1.ServicePortArgs(name=port, port=number, target_port=port) for port, number in ports.items()
            ],
        ),
        opts=opts,
    )


def spread(name: str) -> list[k8s.core.v1.TopologySpreadConstraintArgs]:
    """Evenly over nodes and zones, as far as there are any."""
    return [
        k8s.core.v1.TopologySpreadConstraintArgs(
            max_skew=1,
            topology_key=key,
            when_unsatisfiable="ScheduleAnyway",
            label_selector=k8s.meta.v1.LabelSelectorArgs(match_labels=selector(name)),
        )
        for key in SPREAD_OVER
    ]


def apart(name: str) -> k8s.core.v1.AffinityArgs:
    """Rather not two of them on one node."""
    term = k8s.core.v1.PodAffinityTermArgs(
        topology_key=SPREAD_OVER[0], label_selector=k8s.meta.v1.LabelSelectorArgs(match_labels=selector(name))
    )
    preferred = k8s.core.v1.WeightedPodAffinityTermArgs(weight=100, pod_affinity_term=term)
    return k8s.core.v1.AffinityArgs(
        pod_anti_affinity=k8s.core.v1.PodAntiAffinityArgs(
            preferred_during_scheduling_ignored_during_execution=[preferred]
        )
    )
