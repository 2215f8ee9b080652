"""The Kubernetes target, declared against Pulumi's mocks: every resource, its order, and its security."""

from collections.abc import Iterator
from dataclasses import replace

import kubernetes_validate
import pytest

from pipeline.stages import STAGES, TORCHRUN_ENVIRONMENT
from pipeline.targets import kubernetes
from tests.declared import DIGEST, Declared, declare


@pytest.fixture(scope="module")
def dev() -> Iterator[Declared]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield declare(monkeypatch)


def workload_edges(declared: Declared) -> set[tuple[str, str]]:
    """(stage, stage it waits for), for the resources that run something."""
    resources = {name: name.rpartition("-")[0] for name in declared.pods()}
    return {
        (stage, needed)
        for name, stage in resources.items()
        for other, needed in resources.items()
        if other in declared.dependencies[name] and stage != needed
    }


def test_the_registered_dependencies_are_the_declared_order(dev: Declared) -> None:
    expected = {(stage.name, need) for stage in STAGES for need in stage.needs}
    assert workload_edges(dev) >= expected, "every need must be a registered dependency"
    backwards = {(later, earlier) for earlier, later in workload_edges(dev)} & workload_edges(dev)
    assert not backwards, "no two stages may wait for each other"


@pytest.mark.parametrize("stage", [stage.name for stage in STAGES if stage.needs])
def test_removing_a_need_removes_its_dependency(monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """So that the test above cannot pass on dependencies that come from elsewhere."""
    cut = tuple(replace(entry, needs=()) if entry.name == stage else entry for entry in STAGES)
    edges = workload_edges(declare(monkeypatch, cut))
    [need] = next(entry.needs for entry in STAGES if entry.name == stage)
    assert (stage, need) not in edges, "an edge that is not declared must not be registered"


def test_every_workload_waits_for_namespace_claim_and_images(dev: Declared) -> None:
    for name in dev.pods():
        waits = dev.dependencies[name]
        for needed in ("workspace-namespace", "workspace-claim", "images-tr-ex-job"):
            assert needed in waits, f"{name} must wait for {needed}"


def test_the_stages_are_the_declared_resources(dev: Declared) -> None:
    jobs = {job["metadata"]["name"] for job in dev.of_type(":Job")}
    assert jobs == {"prepare-data", "train", "export", "client", "report"}, "each job stage is a Job of its name"
    assert len(dev.of_type(":Deployment")) == 1, "Triton is a Deployment"
    assert {account["metadata"]["name"] for account in dev.of_type(":ServiceAccount")} == {s.name for s in STAGES}
    assert dev.of_type(":PodDisruptionBudget") == [], "one replica cannot be guarded from disruption"


def test_the_namespace_enforces_pod_security_restricted(dev: Declared) -> None:
    [namespace] = dev.of_type(":Namespace")
    assert namespace["metadata"]["name"] == "job-ns", "as documented"
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_every_pod_meets_pod_security_restricted(dev: Declared) -> None:
    assert len(dev.pods()) == len(STAGES), "every stage runs in a pod"
    for name, template in dev.pods().items():
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["runAsUser"] != 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, f"{name} must have no token"
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            limits, requests = container["resources"]["limits"], container["resources"]["requests"]
            assert limits["memory"] == requests["memory"], f"{name}: memory must not be overcommitted"
            assert limits["cpu"] and requests["cpu"], f"{name} must have both"
            assert container["terminationMessagePolicy"] == "FallbackToLogsOnError", f"{name} must tell why it failed"
            assert container["image"].endswith(f"@{DIGEST}"), f"{name} must be pinned by digest"


def test_every_job_fails_in_time_and_is_replaced_when_it_failed(dev: Declared) -> None:
    for job in dev.of_type(":Job"):
        name = job["metadata"]["name"]
        assert job["metadata"]["annotations"]["pulumi.com/replaceUnready"] == "true", name
        assert job["spec"]["activeDeadlineSeconds"] == 120 * 60, name
        assert job["spec"]["backoffLimit"] == (0 if name == "client" else 2), f"{name}: a failed check has failed"
        assert job["spec"]["podReplacementPolicy"] == "Failed", f"{name}: one pod at a time writes"
        assert "ttlSecondsAfterFinished" not in job["spec"], f"{name}: a collected Job looks deleted and runs again"
        assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never", name


def test_triton_rolls_without_a_gap_and_reads_the_models_only(dev: Declared) -> None:
    [deployment] = dev.of_type(":Deployment")
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
    assert container["startupProbe"]["httpGet"]["path"] == "/v2/health/live"
    assert container["lifecycle"]["preStop"]["exec"]["command"][0] == "sleep", "until the Service has let go of it"
    drain = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert "--connection-seconds=10" in container["args"], "gRPC clients must move to the new pod by themselves"
    assert drain > 11, "before the old pod is told to end, its connections must have aged out"
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > drain + 10, "Triton ends by itself"
    storage = next(mount for mount in container["volumeMounts"] if mount["name"] == "storage")
    assert storage["readOnly"] is True, "serving writes nothing"


def test_several_replicas_have_a_disruption_budget_and_a_shared_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = declare(monkeypatch, tritonReplicas="3")
    [budget] = declared.of_type(":PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1, "one pod at a time may be taken"
    [claim] = declared.of_type(":PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"], "replicas may land on several nodes"


def test_the_claim_is_as_configured(monkeypatch: pytest.MonkeyPatch, dev: Declared) -> None:
    [claim] = dev.of_type(":PersistentVolumeClaim")
    assert claim["metadata"]["name"] == "model-log", "as documented"
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    [other] = declare(monkeypatch, storageClass="fast", storageSize="20Gi").of_type(":PersistentVolumeClaim")
    assert other["spec"]["storageClassName"] == "fast"
    assert other["spec"]["resources"]["requests"]["storage"] == "20Gi"


def test_training_has_no_egress_and_only_prepare_data_reaches_the_network(dev: Declared) -> None:
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in dev.of_type(":NetworkPolicy")}
    deny = policies["default-deny"]
    assert deny["podSelector"] in ({}, {"matchLabels": {}}), "all pods"
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert not deny.get("ingress") and not deny.get("egress"), "nothing is allowed"
    assert "train" not in policies, "nothing opens the training's egress again"
    outside = [name for name, spec in policies.items() if "ipBlock" in str(spec.get("egress"))]
    assert outside == ["prepare-data"], "only the stage that downloads"


def test_triton_takes_its_client_and_the_configured_namespaces_on_three_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = declare(monkeypatch, clientNamespaces='["apps"]')
    [policy] = [spec for spec in declared.of_type(":NetworkPolicy") if spec["metadata"]["name"] == "triton"]
    [rule] = policy["spec"]["ingress"]
    assert {port["port"] for port in rule["ports"]} == {8000, 8001, 8002}
    assert len(rule["from"]) == 2, "the client, and one namespace"
    assert "apps" in str(rule["from"]), "the configured one"


def test_operators_get_just_what_they_need(monkeypatch: pytest.MonkeyPatch, dev: Declared) -> None:
    assert dev.of_type(":Role") == [], "no group, no permissions"
    declared = declare(monkeypatch, operatorsGroup="ml-operators")
    [role], [binding] = declared.of_type(":Role"), declared.of_type(":RoleBinding")
    assert binding["subjects"][0]["name"] == "ml-operators"
    allowed = {(kind, verb) for rule in role["rules"] for kind in rule["resources"] for verb in rule["verbs"]}
    assert ("pods/exec", "create") in allowed
    assert not {verb for _, verb in allowed} & {"*", "delete", "update", "patch"}, "looking, not changing"
    assert not {kind for kind, _ in allowed} & {"secrets", "*"}, "no secrets"
    [exec_rule] = [rule for rule in role["rules"] if "pods/exec" in rule["resources"]]
    assert exec_rule["resourceNames"] == ["inspector"], "exec into the inspector alone"


@pytest.mark.parametrize(
    ("service_type", "endpoint"),
    [
        ("ClusterIP", "triton.job-ns.svc.cluster.local:8001"),
        ("NodePort", "192.0.2.1:30000"),
        ("LoadBalancer", "192.0.2.7:8001"),
    ],
)
def test_the_endpoint_is_right_for_each_service_type(
    monkeypatch: pytest.MonkeyPatch, service_type: str, endpoint: str
) -> None:
    declared = declare(monkeypatch, serviceType=service_type)
    assert declared.outputs["triton_endpoint"] == endpoint
    assert declared.outputs["storage"] == "model-log"
    assert {"triton_http_endpoint", "triton_metrics_endpoint", "model_name", "report"} <= set(declared.outputs)


def test_several_training_pods_find_each_other_and_share_the_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = declare(monkeypatch, trainWorkers="3")
    job = declared.inputs["train-job"]["spec"]
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", 3, 3), (
        "a pod each, with a name"
    )
    pod = job["template"]["spec"]
    [container] = pod["containers"]
    assert "--nnodes=3" in container["args"] and "/app/train.py" in container["args"], "torchrun starts the training"
    assert "--rdzv-endpoint=train-0.train:29500" in container["args"], "they meet at the first"
    set_ = {entry["name"]: entry["value"] for entry in container["env"]}
    assert TORCHRUN_ENVIRONMENT.items() <= set_.items(), "after a restart they meet anew"
    names = declared.inputs["train-names"]
    assert names["spec"]["clusterIP"] == "None" and names["metadata"]["name"] == pod["subdomain"], "whose name is known"
    assert "train-names" in declared.dependencies["train-job"], "before the pods look for it"
    [claim] = declared.of_type(":PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"], "on whichever nodes they run"
    [policy] = [spec for spec in declared.of_type(":NetworkPolicy") if spec["metadata"]["name"] == "train"]
    assert "ipBlock" not in str(policy["spec"]), "they reach each other, and nothing outside"


def test_a_training_by_one_pod_needs_no_names(dev: Declared) -> None:
    assert "train-names" not in dev.types, "nothing looks for it"
    assert dev.inputs["train-job"]["spec"]["completions"] == 1, "one pod"


def test_nvidias_image_is_used_as_it_is_and_ours_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = declare(monkeypatch, tritonImage="ngc")
    assert "images-triton" not in declared.types, "not built"
    [deployment] = declared.of_type(":Deployment")
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == kubernetes.NGC_IMAGE
    assert container["command"] == ["tritonserver"], "its own entry point"


def test_a_private_registry_gets_a_pull_secret_that_stays_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = declare(monkeypatch, registry="registry.example.org/team", registryUser="me", registryPassword="hunter2")
    [secret] = declared.of_type(":Secret")
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
    assert ("workspace-pull-secret", "stringData") in declared.secrets, "encrypted in the state"
    assert ("images-triton", "registry") in declared.secrets, "here too"
    for name, template in declared.pods().items():
        assert template["spec"]["imagePullSecrets"] == [{"name": "registry"}], name


def test_run_through_leaves_out_what_comes_after(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = declare(monkeypatch, runThrough="export")
    assert {name.rpartition("-")[0] for name in declared.pods()} == {"prepare-data", "train", "export"}
    assert "triton_endpoint" not in declared.outputs, "nothing serves"


@pytest.mark.parametrize("version", ["1.30", "1.36"])
@pytest.mark.parametrize("service_type", ["ClusterIP", "LoadBalancer"])
def test_every_manifest_fits_the_schema_of_the_oldest_and_newest_supported_kubernetes(
    monkeypatch: pytest.MonkeyPatch, version: str, service_type: str
) -> None:
    declared = declare(
        monkeypatch,
        serviceType=service_type,
        tritonReplicas="2",
        operatorsGroup="ops",
        clientNamespaces='["apps"]',
        monitoringNamespace="monitoring",
        registryUser="me",
        registryPassword="secret",
    )
    manifests = [inputs for name, inputs in declared.inputs.items() if declared.types[name].startswith("kubernetes:")]
    assert len(manifests) > 20, "all kinds are checked"
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)
