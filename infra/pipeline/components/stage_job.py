"""A stage as a Kubernetes Job."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

from pipeline.components.pods import (
    PYTHON,
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
from pipeline.stages import TORCHRUN, TORCHRUN_ENVIRONMENT

RENDEZVOUS_PORT = 29500
SCRATCH = "256Mi"
GRACE_SECONDS = 30  # a training writes a last checkpoint


@dataclass(frozen=True, kw_only=True)
class StageJobArgs:
    """A Job's own part; all Jobs share the rest.

    Attributes:
        command: Script in the image and its options.
        revision: Names what the stage runs and what ran before it: another one replaces the Job.
        timeout_minutes: After so many the Job fails.
        retries: Pods to try after a first one failed.
        secret: A Secret whose entries become environment variables.
        workers: Pods that share the work; each has a name of its own, which the others can look up.
    """

    namespace: str
    claim: str
    image: pulumi.Input[str]
    command: Sequence[pulumi.Input[str]]
    revision: pulumi.Input[str]
    resources: Resources
    timeout_minutes: int
    retries: int
    workers: int
    pull_secret: str | None
    secret: str | None = None


class StageJob(pulumi.ComponentResource):
    """Runs a stage's script to completion; Pulumi waits for it, and replaces it when anything about it changes."""

    def __init__(self, name: str, args: StageJobArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mnist:pipeline:StageJob", name, None, opts)
        minutes = args.timeout_minutes
        needed = pulumi.ResourceOptions(parent=self, depends_on=opts.depends_on if opts is not None else None)
        if args.workers > 1:
            names = self._names(name, args, needed)
            needed = pulumi.ResourceOptions.merge(needed, pulumi.ResourceOptions(depends_on=[names]))
        self.job = k8s.batch.v1.Job(
            f"{name}-job",
            metadata=k8s.meta.v1.ObjectMetaArgs(
                name=name,
                namespace=args.namespace,
                labels=labels(name, "stage"),
                # A failed Job would otherwise only be waited for again by every later `up`.
                annotations={"pulumi.com/replaceUnready": "true"},
            ),
            spec=k8s.batch.v1.JobSpecArgs(
                backoff_limit=args.retries,
                completion_mode="Indexed" if args.workers > 1 else "NonIndexed",
                completions=args.workers,
                parallelism=args.workers,
                pod_replacement_policy="Failed",  # a deleted pod may still write its last checkpoint: one at a time
                active_deadline_seconds=minutes * 60,
                template=_pod(name, args),
            ),
            opts=pulumi.ResourceOptions.merge(
                needed,
                pulumi.ResourceOptions(
                    # A little later than the Job's own deadline, whose message says more.
                    custom_timeouts=pulumi.CustomTimeouts(
                        create=f"{minutes + 5}m", update=f"{minutes + 5}m", delete="5m"
                    ),
                    delete_before_replace=True,  # the name is fixed
                ),
            ),
        )
        self.register_outputs({"name": name})

    def _names(self, name: str, args: StageJobArgs, needed: pulumi.ResourceOptions) -> k8s.core.v1.Service:
        """A headless service: `<job>-<index>.<job>` is a pod's address, also before it is ready."""
        return k8s.core.v1.Service(
            f"{name}-names",
            metadata=k8s.meta.v1.ObjectMetaArgs(name=name, namespace=args.namespace, labels=labels(name, "stage")),
            spec=k8s.core.v1.ServiceSpecArgs(
                cluster_ip="None",
                selector=selector(name),
                publish_not_ready_addresses=True,
                ports=[k8s.core.v1.ServicePortArgs(name="rendezvous", port=RENDEZVOUS_PORT)],
            ),
            opts=pulumi.ResourceOptions.merge(needed, pulumi.ResourceOptions(delete_before_replace=True)),
        )


def torchrun(stage: str, workers: int) -> list[str]:
    """What stands before the script: one process a pod, which find each other at the first pod."""
    if workers == 1:
        return []
    meeting = ("--rdzv-backend=c10d", f"--rdzv-endpoint={stage}-0.{stage}:{RENDEZVOUS_PORT}", f"--rdzv-id={stage}")
    return [*TORCHRUN, f"--nnodes={workers}", "--nproc-per-node=1", *meeting]


def _pod(name: str, args: StageJobArgs) -> k8s.core.v1.PodTemplateSpecArgs:
    secrets = [k8s.core.v1.LocalObjectReferenceArgs(name=args.pull_secret)] if args.pull_secret else None
    return k8s.core.v1.PodTemplateSpecArgs(
        metadata=k8s.meta.v1.ObjectMetaArgs(
            labels={**labels(name, "stage"), **selector(name)},
            annotations={"mnist-triton/revision": args.revision},
        ),
        spec=k8s.core.v1.PodSpecArgs(
            restart_policy="Never",
            service_account_name=name,
            automount_service_account_token=False,
            enable_service_links=False,
            subdomain=name if args.workers > 1 else None,
            termination_grace_period_seconds=GRACE_SECONDS,
            security_context=pod_security(),
            image_pull_secrets=secrets,
            containers=[
                k8s.core.v1.ContainerArgs(
                    name=name,
                    image=args.image,
                    command=[PYTHON],
                    args=list(args.command),
                    env=environment(TORCHRUN_ENVIRONMENT if args.workers > 1 else None),
                    env_from=secret_environment(args.secret),
                    resources=requirements(args.resources),
                    security_context=container_security(),
                    termination_message_policy="FallbackToLogsOnError",  # so that `up` can show the reason
                    volume_mounts=[storage_mount(), *scratch_mounts({"tmp": "/tmp"})],
                )
            ],
            volumes=[storage_volume(args.claim), scratch_volume("tmp", SCRATCH)],
        ),
    )
