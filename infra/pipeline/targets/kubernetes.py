"""Stages as Jobs, a Deployment and what they need, on a Kubernetes cluster."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from pipeline.cluster import connect
from pipeline.components import triton as triton_ports
from pipeline.components.images import Images, ImagesArgs
from pipeline.components.monitoring import OPERATOR_GROUP, Monitoring, MonitoringArgs
from pipeline.components.object_store import SECRET, ObjectStore, ObjectStoreArgs
from pipeline.components.pods import APP, PYTHON, STORAGE_PATH, Resources
from pipeline.components.scaling import CUSTOM_METRICS_GROUP, Replicas, headless_name
from pipeline.components.stage_job import StageJob, StageJobArgs, torchrun
from pipeline.components.triton import Triton, TritonArgs
from pipeline.components.workspace import CLAIM, PULL_SECRET, Workspace, WorkspaceArgs
from pipeline.encryption import check_passphrase
from pipeline.settings import ROOT, Settings
from pipeline.stages import STAGES, Stage

WORKLOADS = ROOT / "workloads"
TRAINING_IMAGE, CLIENT_IMAGE, TRITON_IMAGE = "tr-ex-job", "client-job", "triton"
IMAGE_OF = {
    "prepare-data": TRAINING_IMAGE,
    "train": TRAINING_IMAGE,
    "export": TRAINING_IMAGE,
    "triton": TRITON_IMAGE,
    "client": CLIENT_IMAGE,
    "report": CLIENT_IMAGE,
}
STORE_USERS = ("export", "triton")  # of the model repository, where it is an object store
NGC_IMAGE = "nvcr.io/nvidia/tritonserver:23.04-py3"
# p50 and p99, as workloads/serving/launch.py has it. Images before 23.04 would not start with it.
METRICS_CONFIG = ("--metrics-config=summary_latencies=true", "--metrics-config=summary_quantiles=0.5:0.05,0.99:0.001")
# What the light stages need; train's and Triton's are settings.
LIGHT = Resources(cpus=1, memory="1Gi")
EXPORT = Resources(cpus=2, memory="3Gi")


class KubernetesTarget:
    """Declares images and workspace at once, then each stage on them.

    Raises:
        ConfigurationError: the cluster is not named, unknown, or does not answer; or a secret is not really encrypted.
    """

    def __init__(self, settings: Settings, stack: str, kubeconfig: str | None = None) -> None:
        self.settings = settings
        secrets = {"registryPassword": settings.registry_user, "s3SecretAccessKey": settings.s3_access_key_id}
        for secret in (name for name, user in secrets.items() if user):
            check_passphrase(secret, ROOT / f"Pulumi.{stack}.yaml", os.environ)
        self.cluster = connect(settings.kube_context)
        if settings.monitoring == "operator":
            self.cluster.require(
                OPERATOR_GROUP, "monitoring", "operator", "install the Prometheus operator, or set annotations"
            )
        if settings.triton_max_replicas and settings.autoscale_metric == "queueTime":
            remedy = "install the Prometheus adapter, or set cpu"
            self.cluster.require(CUSTOM_METRICS_GROUP, "autoscaleMetric", "queueTime", remedy)
        provider = k8s.Provider(
            "cluster",
            context=self.cluster.context,
            kubeconfig=kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config"),
        )
        self._on_cluster = pulumi.ResourceOptions(providers={"kubernetes": provider})
        self.images = Images("images", self._images_args())
        self.workspace = Workspace("workspace", self._workspace_args(), self._on_cluster)
        self.store = self._object_store()
        self.triton: Triton | None = None
        self.revisions: dict[str, pulumi.Output[str]] = {}

    def add(self, stage: Stage, after: Sequence[pulumi.Resource]) -> pulumi.Resource:
        store = self.store if stage.name in STORE_USERS else []
        opts = pulumi.ResourceOptions.merge(
            self._on_cluster, pulumi.ResourceOptions(depends_on=[self.images, self.workspace, *store, *after])
        )
        command = self._command(stage)
        image = self._image(stage)
        upstream = [self.revisions[need] for need in stage.needs]
        # Names this run of the stage: what it runs, and what ran before it. A new one replaces the Job.
        self.revisions[stage.name] = pulumi.Output.all(image, *command, *upstream).apply(_digest)
        if stage.kind == "server":
            self._monitor(stage)
            self.triton = Triton(stage.name, self._triton_args(stage, image, command), opts)
            return self.triton
        return StageJob(
            stage.name,
            StageJobArgs(
                namespace=self.settings.namespace,
                claim=CLAIM,
                image=image,
                command=command,
                revision=self.revisions[stage.name],
                resources=self._resources(stage),
                timeout_minutes=self.settings.stage_timeout_minutes,
                retries=stage.retries,
                workers=stage.workers(self.settings),
                pull_secret=self._pull_secret,
                secret=SECRET if store else None,
            ),
            opts,
        )

    def outputs(self) -> Mapping[str, Any]:
        names = {"triton_endpoint": "grpc", "triton_http_endpoint": "http", "triton_metrics_endpoint": "metrics"}
        endpoints = {}
        if self.triton is not None:
            endpoints = {output: self._endpoint(self.triton.service, port) for output, port in names.items()}
        report = {"report": f"{STORAGE_PATH}/results/latest/report.html"} if "report" in self.revisions else {}
        return {
            **endpoints,
            "model_name": self.settings.model_name,
            "storage": CLAIM,
            "namespace": self.settings.namespace,
            **report,
        }

    def _endpoint(self, service: k8s.core.v1.Service, port: str) -> pulumi.Output[str]:
        """Where the stack's user reaches the port, as far as the service type allows."""
        number = triton_ports.PORTS[port]
        match self.settings.service_type:
            case "NodePort":
                node = self.cluster.node_address
                return service.spec.ports.apply(
                    lambda ports: f"{node}:{next(entry.node_port for entry in ports if entry.name == port)}"
                )
            case "LoadBalancer":
                return service.status.load_balancer.ingress.apply(
                    lambda ingress: f"{ingress[0].ip or ingress[0].hostname}:{number}"
                )
            case _:
                return pulumi.Output.from_input(f"{self._service_host}:{number}")

    @property
    def _service_host(self) -> str:
        return f"triton.{self._domain}"

    @property
    def _domain(self) -> str:
        return f"{self.settings.namespace}.svc.cluster.local"

    @property
    def _spreads(self) -> bool:
        """Whether pods that use the storage may run on several nodes at a time."""
        reads_storage = self.settings.scales and not self.settings.model_repository
        return reads_storage or self.settings.train_workers > 1

    @property
    def _gpus(self) -> int:
        return 1 if self.settings.accelerator == "nvidia" else 0

    @property
    def _pull_secret(self) -> str | None:
        return PULL_SECRET if self.settings.registry_user else None

    def _command(self, stage: Stage) -> list[str]:
        options = {"storage": STORAGE_PATH, **stage.arguments(self.settings)}
        if stage.name == "export":
            options |= {"serving-cpus": str(self.settings.serving_cpus), "serve-on": self.settings.accelerator}
        if stage.kind == "server":
            options["connection-seconds"] = str(triton_ports.CONNECTION_SECONDS)
        if self.store and stage.name in STORE_USERS:
            options["model-repository"] = self.settings.model_repository
        if stage.calls is not None:
            # With several pods, all of their addresses: gRPC then takes them in turn.
            several = f"dns:///{headless_name(stage.calls)}.{self._domain}"
            options["endpoint"] = f"{several if self.settings.scales else self._service_host}:{triton_ports.GRPC}"
        start = torchrun(stage.name, stage.workers(self.settings))
        return [*start, f"{APP}/{stage.script}", *(f"--{key}={value}" for key, value in options.items())]

    def _image(self, stage: Stage) -> pulumi.Output[str]:
        if stage.kind == "server" and self.settings.triton_image != "slim":
            chosen = self.settings.triton_image
            return pulumi.Output.from_input(NGC_IMAGE if chosen == "ngc" else chosen)
        return self.images.digest(IMAGE_OF[stage.name])

    def _resources(self, stage: Stage) -> Resources:
        if stage.name == "train":
            return Resources(cpus=self.settings.train_cpus, memory=self.settings.train_memory, gpus=self._gpus)
        return EXPORT if stage.name == "export" else LIGHT

    def _monitor(self, stage: Stage) -> None:
        if self.settings.monitoring == "none":
            return
        opts = pulumi.ResourceOptions.merge(self._on_cluster, pulumi.ResourceOptions(depends_on=[self.workspace]))
        args = MonitoringArgs(
            namespace=self.settings.namespace,
            operator=self.settings.monitoring == "operator",
            server=stage.name,
            model_name=self.settings.model_name,
            last_job=next(other.name for other in STAGES if other.calls == stage.name),
            max_latency_ms=self.settings.max_latency_ms,
            max_run_age_days=self.settings.max_run_age_days,
        )
        Monitoring("monitoring", args, opts)

    def _triton_args(self, stage: Stage, image: pulumi.Output[str], command: list[str]) -> TritonArgs:
        slim = self.settings.triton_image == "slim"
        native = [
            f"--model-repository={self.settings.model_repository or f'{STORAGE_PATH}/models'}",
            "--model-control-mode=none",
            "--strict-readiness=true",
            "--exit-timeout-secs=10",
            *(METRICS_CONFIG if self.settings.triton_image == "ngc" else ()),
        ]
        return TritonArgs(
            namespace=self.settings.namespace,
            claim=None if self.store else CLAIM,
            image=image,
            command=[PYTHON] if slim else ["tritonserver"],
            arguments=command if slim else native,
            revision=self.revisions[stage.name],
            replicas=Replicas(
                least=self.settings.triton_replicas,
                most=max(self.settings.triton_replicas, self.settings.triton_max_replicas),
                metric=self.settings.autoscale_metric,
                cpus=self.settings.serving_cpus,
            ),
            resources=Resources(cpus=self.settings.serving_cpus, memory=self.settings.triton_memory, gpus=self._gpus),
            service_type=self.settings.service_type,
            timeout_minutes=self.settings.stage_timeout_minutes,
            pull_secret=self._pull_secret,
            scrape_annotations=self.settings.monitoring == "annotations",
            secret=SECRET if self.store else None,
        )

    def _images_args(self) -> ImagesArgs:
        names = (TRAINING_IMAGE, CLIENT_IMAGE, *((TRITON_IMAGE,) if self.settings.triton_image == "slim" else ()))
        cuda = {"TORCH_BACKEND": "cuda"} if self._gpus else {}
        return ImagesArgs(
            names=names,
            registry=self.settings.registry,
            context=WORKLOADS,
            network=self.settings.build_network,
            build_args={**cuda, **dict(entry.split("=", 1) for entry in self.settings.build_args)},
            user=self.settings.registry_user,
            password=self._registry_password(),
        )

    def _workspace_args(self) -> WorkspaceArgs:
        password = self._registry_password()
        server = self.settings.registry.partition("/")[0]
        return WorkspaceArgs(
            namespace=self.settings.namespace,
            workloads=[stage.name for stage in STAGES],
            server="triton",
            downloads="prepare-data",
            clients=[stage.name for stage in STAGES if stage.calls == "triton"],
            client_namespaces=self.settings.client_namespaces,
            monitoring_namespace=self.settings.monitoring_namespace,
            storage_class=self.settings.storage_class,
            storage_size=self.settings.storage_size,
            teams=[stage.name for stage in STAGES if stage.workers(self.settings) > 1],
            access_mode="ReadWriteMany" if self._spreads else "ReadWriteOnce",
            keep_data=self.settings.keep_data,
            operators=self.settings.operators_group,
            pull_secret=(server, self.settings.registry_user, password) if password is not None else None,
        )

    def _object_store(self) -> list[ObjectStore]:
        """Empty where the models are in the storage."""
        settings = self.settings
        if not settings.model_repository:
            return []
        secret_key = settings.s3_secret_access_key.get_secret_value()
        args = ObjectStoreArgs(
            namespace=settings.namespace,
            url=settings.model_repository,
            users=STORE_USERS,
            region=settings.s3_region,
            key_id=settings.s3_access_key_id or None,
            secret_key=pulumi.Output.secret(secret_key) if secret_key else None,
        )
        opts = pulumi.ResourceOptions.merge(self._on_cluster, pulumi.ResourceOptions(depends_on=[self.workspace]))
        return [ObjectStore("model-repository", args, opts)]

    def _registry_password(self) -> pulumi.Output[str] | None:
        if not self.settings.registry_user:
            return None
        return pulumi.Output.secret(self.settings.registry_password.get_secret_value())


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
