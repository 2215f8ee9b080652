"""Triton as a Deployment behind a Service."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

from pipeline.components.pods import (
    Resources,
    container_security,
    environment,
    labels,
    pod_security,
    requirements,
    scratch_mounts,
    scratch_volume,
    secret_environment,
    selector,
    storage_mount,
    storage_volume,
)
from pipeline.components.scaling import Replicas, apart, autoscaler, headless, spread

GRPC, HTTP, METRICS = 8001, 8000, 8002
PORTS = {"grpc": GRPC, "http": HTTP, "metrics": METRICS}
CONNECTION_SECONDS = 10  # gRPC clients connect anew after so long (give or take a tenth)
# After SIGTERM Triton unloads its models but still answers on open connections, with errors. So before it, every node
# takes the pod out of the Service, and every connection ages out and moves to another pod.
DRAIN_SECONDS = CONNECTION_SECONDS + 5
GRACE_SECONDS = DRAIN_SECONDS + 40
STARTUP_SECONDS = 300


@dataclass(frozen=True, kw_only=True)
class TritonArgs:
    """How Triton is run.

    Attributes:
        revision: Names the pipeline run that published the model; another one rolls the pods, which load at start.
        command, arguments: Of the container.
        service_type: ClusterIP, NodePort or LoadBalancer.
        timeout_minutes: How long a rollout may take, a large image's pull included.
        scrape_annotations: Tell Prometheus by annotations where the metrics are.
        claim: Where the models are; None where the server reads them elsewhere.
        secret: A Secret whose entries become environment variables.
    """

    namespace: str
    claim: str | None
    image: pulumi.Input[str]
    command: Sequence[str]
    arguments: Sequence[str]
    revision: pulumi.Input[str]
    replicas: Replicas
    resources: Resources
    service_type: str
    timeout_minutes: int
    pull_secret: str | None
    scrape_annotations: bool
    secret: str | None


class Triton(pulumi.ComponentResource):
    """Deployment and Service; with several replicas a PodDisruptionBudget, a headless Service and the autoscaler."""

    def __init__(self, name: str, args: TritonArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mnist:pipeline:Triton", name, None, opts)
        limit = f"{args.timeout_minutes}m"
        child = pulumi.ResourceOptions(
            parent=self,
            custom_timeouts=pulumi.CustomTimeouts(create=limit, update=limit, delete="10m"),
            delete_before_replace=True,
            depends_on=opts.depends_on if opts is not None else None,
        )
        self.deployment = k8s.apps.v1.Deployment(
            f"{name}-deployment",
            metadata=_meta(name, args),
            spec=k8s.apps.v1.DeploymentSpecArgs(
                replicas=args.replicas.least,
                selector=k8s.meta.v1.LabelSelectorArgs(match_labels=selector(name)),
                strategy=k8s.apps.v1.DeploymentStrategyArgs(
                    type="RollingUpdate",
                    rolling_update=k8s.apps.v1.RollingUpdateDeploymentArgs(max_unavailable=0, max_surge=1),
                ),
                progress_deadline_seconds=args.timeout_minutes * 60,
                revision_history_limit=3,
                template=_pod(name, args),
            ),
            # How many there are is then the autoscaler's matter.
            opts=pulumi.ResourceOptions.merge(
                child, pulumi.ResourceOptions(ignore_changes=["spec.replicas"] if args.replicas.varies else None)
            ),
        )
        self.service = k8s.core.v1.Service(
            f"{name}-service",
            metadata=_meta(name, args),
            spec=k8s.core.v1.ServiceSpecArgs(
                type=args.service_type,
                selector=selector(name),
                ports=[
                    k8s.core.v1.ServicePortArgs(name=port, port=number, target_port=port)
                    for port, number in PORTS.items()
                ],
            ),
            opts=child,
        )
        if args.replicas.most > 1:
            headless(name, args.namespace, PORTS, child)
            k8s.policy.v1.PodDisruptionBudget(
                f"{name}-disruption-budget",
                metadata=_meta(name, args),
                spec=k8s.policy.v1.PodDisruptionBudgetSpecArgs(
                    max_unavailable=1,
                    selector=k8s.meta.v1.LabelSelectorArgs(match_labels=selector(name)),
                ),
                opts=child,
            )
        if args.replicas.varies:
            autoscaler(
                name,
                _meta(name, args),
                args.replicas,
                pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[self.deployment])),
            )
        self.register_outputs({"name": name})


def _meta(name: str, args: TritonArgs) -> k8s.meta.v1.ObjectMetaArgs:
    return k8s.meta.v1.ObjectMetaArgs(name=name, namespace=args.namespace, labels=labels(name, "server"))


def _pod(name: str, args: TritonArgs) -> k8s.core.v1.PodTemplateSpecArgs:
    secrets = [k8s.core.v1.LocalObjectReferenceArgs(name=args.pull_secret)] if args.pull_secret else None
    scrape = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(METRICS),
        "prometheus.io/path": "/metrics",
    }
    return k8s.core.v1.PodTemplateSpecArgs(
        metadata=k8s.meta.v1.ObjectMetaArgs(
            labels={**labels(name, "server"), **selector(name)},
            annotations={"mnist-triton/revision": args.revision, **(scrape if args.scrape_annotations else {})},
        ),
        spec=k8s.core.v1.PodSpecArgs(
            service_account_name=name,
            automount_service_account_token=False,
            enable_service_links=False,  # TRITON_* variables of the Service would be taken for Triton's own
            termination_grace_period_seconds=GRACE_SECONDS,
            security_context=pod_security(),
            image_pull_secrets=secrets,
            topology_spread_constraints=spread(name) if args.replicas.most > 1 else None,
            affinity=apart(name) if args.replicas.most > 1 else None,
            containers=[_container(name, args)],
            volumes=[
                *([storage_volume(args.claim, read_only=True)] if args.claim else []),
                scratch_volume("tmp", "256Mi"),
                scratch_volume("shm", "256Mi", in_memory=True),  # the Python backend's tensors
            ],
        ),
    )


def _container(name: str, args: TritonArgs) -> k8s.core.v1.ContainerArgs:
    return k8s.core.v1.ContainerArgs(
        name=name,
        image=args.image,
        command=list(args.command),
        args=list(args.arguments),
        env=environment(),
        env_from=secret_environment(args.secret),
        ports=[k8s.core.v1.ContainerPortArgs(name=port, container_port=number) for port, number in PORTS.items()],
        resources=requirements(args.resources),
        security_context=container_security(),
        termination_message_policy="FallbackToLogsOnError",
        volume_mounts=[
            *([storage_mount(read_only=True)] if args.claim else []),
            *scratch_mounts({"tmp": "/tmp", "shm": "/dev/shm"}),
        ],
        # Ready is false while a model loads, so liveness must not ask for it.
        startup_probe=_probe("/v2/health/live", period=2, failures=STARTUP_SECONDS // 2),
        readiness_probe=_probe("/v2/health/ready", period=2, failures=2),
        liveness_probe=_probe("/v2/health/live", period=10, failures=3),
        lifecycle=k8s.core.v1.LifecycleArgs(
            pre_stop=k8s.core.v1.LifecycleHandlerArgs(
                exec_=k8s.core.v1.ExecActionArgs(command=["sleep", str(DRAIN_SECONDS)])
            )
        ),
    )


def _probe(path: str, period: int, failures: int) -> k8s.core.v1.ProbeArgs:
    return k8s.core.v1.ProbeArgs(
        http_get=k8s.core.v1.HTTPGetActionArgs(path=path, port="http"),
        period_seconds=period,
        failure_threshold=failures,
        timeout_seconds=2,
    )
