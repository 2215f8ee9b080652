"""Beyond one pod and one machine: replicas that scale, an object store, GPUs; as declared against Pulumi's mocks."""

from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest

from pipeline.components.object_store import port_of
from pipeline.errors import ConfigurationError
from pipeline.settings import load_settings
from pipeline.stages import STAGES
from pipeline.targets import kubernetes
from tests.declared import CLUSTER, Declared, declare
from tests.unit.test_settings import defaults

SEVERAL = {"tritonReplicas": "2", "tritonMaxReplicas": "5"}
STORE = {
    "modelRepository": "s3://http://minio.example:9000/models/mnist",
    "s3AccessKeyId": "key-id",
    "s3SecretAccessKey": "hunter2",
}
GPU = {"accelerator": "nvidia", "tritonImage": "ngc"}


def container(declared: Declared, name: str) -> dict[str, Any]:
    [only] = declared.pods()[name]["spec"]["containers"]
    return dict(only)


def test_a_fixed_number_of_replicas_has_no_autoscaler(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = declare(monkeypatch, tritonReplicas="3")
    assert declared.inputs["triton-deployment"]["spec"]["replicas"] == 3
    assert declared.of_type(":HorizontalPodAutoscaler") == [], "nobody else changes it"


def test_the_autoscaler_keeps_the_number_between_the_two_by_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = declare(monkeypatch, None, tritonCpus="4", **SEVERAL)
    [autoscaler] = declared.of_type(":HorizontalPodAutoscaler")
    spec = autoscaler["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 5)
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "triton"}
    [metric] = spec["metrics"]
    assert metric["resource"]["target"] == {"type": "AverageValue", "averageValue": "2800m"}, (
        "70 % of the limit; a share would be one of the request, which is a fourth of it"
    )
    assert "triton-deployment" in declared.dependencies["triton-autoscaler"], "what it scales is there before it"


def test_by_queue_time_it_needs_an_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {f"mnist:{key}": value for key, value in {**SEVERAL, "autoscaleMetric": "queueTime"}.items()}
    settings = load_settings({**defaults(), "kubernetes:context": CLUSTER.context, **changes}, {})
    monkeypatch.setattr(kubernetes, "connect", lambda _context: CLUSTER)
    with pytest.raises(
        ConfigurationError, match=r"autoscaleMetric is queueTime, .* does not know custom.metrics.k8s.io"
    ):
        kubernetes.KubernetesTarget(settings, "dev", kubeconfig="{}")
    with_adapter = replace(CLUSTER, api_groups=CLUSTER.api_groups | {"custom.metrics.k8s.io"})
    monkeypatch.setattr("tests.declared.CLUSTER", with_adapter)
    declared = declare(monkeypatch, None, autoscaleMetric="queueTime", **SEVERAL)
    [metric] = declared.of_type(":HorizontalPodAutoscaler")[0]["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == "triton_queue_us_per_request", "what the adapter's rule makes"


@pytest.mark.parametrize("changes", [{"tritonReplicas": "2"}, {"tritonMaxReplicas": "2"}], ids=["fixed", "scaling"])
def test_several_replicas_are_spread_and_found_one_by_one(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]
) -> None:
    declared = declare(monkeypatch, None, **changes)
    pod = declared.inputs["triton-deployment"]["spec"]["template"]["spec"]
    keys = [constraint["topologyKey"] for constraint in pod["topologySpreadConstraints"]]
    assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"], "over nodes and zones"
    assert {constraint["whenUnsatisfiable"] for constraint in pod["topologySpreadConstraints"]} == {"ScheduleAnyway"}
    assert pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"], "rather not together"
    service = declared.inputs["triton-replicas"]
    assert service["spec"]["clusterIP"] == "None", "its name stands for all pods"
    endpoint = "--endpoint=dns:///triton-replicas.job-ns.svc.cluster.local:8001"
    assert endpoint in container(declared, "client-job")["args"], "the client goes round them"


def test_one_replica_needs_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = declare(monkeypatch)
    pod = declared.inputs["triton-deployment"]["spec"]["template"]["spec"]
    assert not pod.get("topologySpreadConstraints") and not pod.get("affinity"), "there is nothing to spread"
    assert "triton-replicas" not in declared.types
    assert "--endpoint=triton.job-ns.svc.cluster.local:8001" in container(declared, "client-job")["args"]


def test_with_an_object_store_triton_reads_that_and_mounts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = declare(monkeypatch, None, tritonReplicas="3", **STORE)
    triton = declared.inputs["triton-deployment"]["spec"]["template"]["spec"]
    assert "persistentVolumeClaim" not in str(triton), "so it runs on any node"
    option = f"--model-repository={STORE['modelRepository']}"
    for name in ("triton-deployment", "export-job"):
        assert option in container(declared, name)["args"], f"{name} must know where"
        assert container(declared, name)["envFrom"] == [{"secretRef": {"name": "model-repository"}}], name
        assert "model-repository-credentials" in declared.dependencies[name], f"{name} needs it to start"
    for name in ("train-job", "prepare-data-job", "client-job", "report-job"):
        assert not container(declared, name).get("envFrom"), f"{name} has no use for credentials"
    [claim] = declared.of_type(":PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"], "the claim is read by no replica"


def test_nvidias_image_reads_the_object_store_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    args = container(declare(monkeypatch, None, tritonImage="ngc", **STORE), "triton-deployment")["args"]
    assert f"--model-repository={STORE['modelRepository']}" in args


def test_the_object_stores_key_is_where_it_is_needed_alone_and_encrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = declare(monkeypatch, None, **STORE)
    holders = {
        (name, key)
        for name, inputs in declared.inputs.items()
        for key, value in inputs.items()
        if "hunter2" in str(value)
    }
    assert holders == {("model-repository-credentials", "stringData")}, "no pod, no command line has it"
    assert holders <= declared.secrets, "Pulumi must encrypt it in the state"


def test_pods_with_an_identity_of_their_own_get_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = declare(monkeypatch, modelRepository="s3://bucket/models", s3Region="eu-west-1")
    assert declared.inputs["model-repository-credentials"]["stringData"] == {"AWS_DEFAULT_REGION": "eu-west-1"}


def test_only_export_and_triton_reach_the_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = declare(monkeypatch, None, **STORE).inputs["model-repository-policy"]["spec"]
    [expression] = policy["podSelector"]["matchExpressions"]
    assert expression["values"] == ["export", "triton"]
    assert [port["port"] for port in policy["egress"][0]["ports"]] == [53, 53, 9000], "DNS, and the store's port"


@pytest.mark.parametrize(
    ("url", "port"), [("s3://bucket/models", 443), ("s3://minio:9000/bucket", 9000), ("s3://https://h:8443/b/m", 8443)]
)
def test_the_stores_port_is_that_of_its_address(url: str, port: int) -> None:
    assert port_of(url) == port


def test_with_a_gpu_training_and_triton_ask_for_one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = declare(monkeypatch, None, **GPU)
    for name in ("train-job", "triton-deployment"):
        assert container(declared, name)["resources"]["limits"]["nvidia.com/gpu"] == "1", name
    for name in ("prepare-data-job", "export-job", "client-job", "report-job"):
        assert "nvidia.com/gpu" not in container(declared, name)["resources"]["limits"], f"{name} computes on CPUs"
    assert "--accelerator=nvidia" in container(declared, "train-job")["args"]
    assert "--serve-on=nvidia" in container(declared, "export-job")["args"], "config.pbtxt says KIND_GPU"
    assert declared.inputs["images-tr-ex-job"]["build"]["args"]["TORCH_BACKEND"] == "cuda", "PyTorch with CUDA"


@pytest.mark.parametrize("version", ["1.30", "1.36"])
def test_every_manifest_of_it_fits_kubernetes_schemas(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    declared = declare(monkeypatch, None, trainWorkers="2", **SEVERAL, **STORE, **GPU)
    for name, inputs in declared.inputs.items():
        if declared.types[name].startswith("kubernetes:"):
            kubernetes_validate.validate(inputs, version, strict=True)


def test_the_stores_users_are_stages() -> None:
    assert set(kubernetes.STORE_USERS) <= {stage.name for stage in STAGES}, "a stage that is renamed is missed"
