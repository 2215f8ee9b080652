"""Stack dev on a real cluster: up with full MNIST, unchanged up, changes, the claim, kept data, down.

The tests of this file run in order on one stack: each goes on from what the one before left.
"""

import json
import os
import subprocess
import threading
from typing import Any

import numpy as np
import pytest

from mnist.errors import ServerError
from mnist.inference import ServedModel
from tests.checkout import Checkout
from tests.declared import declare

NAMESPACE = os.environ.get("TEST_NAMESPACE", "mnist-test")
STAGES = ["prepare-data", "train", "export", "triton", "client", "report"]


def settings(mnist_url: str, **changes: Any) -> dict[str, Any]:
    """`BUILD_NETWORK` is for Docker daemons whose default network reaches nothing."""
    network = {"buildNetwork": os.environ["BUILD_NETWORK"]} if os.environ.get("BUILD_NETWORK") else {}
    common = {"namespace": NAMESPACE, "datasetUrl": mnist_url, "minAccuracy": "0.985", "serviceType": "NodePort"}
    return {**common, **network, **changes}


def kubectl(dev: Checkout, *arguments: str) -> Any:
    context = dev.pulumi("config", "get", "kubernetes:context").output.strip()
    done = subprocess.run(
        ["kubectl", "--context", context, "--namespace", NAMESPACE, *arguments, "--output=json"],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def uids(dev: Checkout) -> dict[str, str]:
    """Which object each stage is: a Job's uid, the Deployment's revision."""
    found = {item["metadata"]["name"]: item["metadata"]["uid"] for item in kubectl(dev, "get", "jobs")["items"]}
    for item in kubectl(dev, "get", "deployments")["items"]:
        found[item["metadata"]["name"]] = item["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
    return found


def endpoint(dev: Checkout) -> str:
    return dev.pulumi("stack", "output", "triton_endpoint").output.strip()


class Load:
    """One request after the other, on one connection, for as long as the block lasts."""

    def __init__(self, address: str) -> None:
        self.answers, self.failures = 0, list[str]()
        self._address, self._end = address, threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _send(self) -> None:
        pixels = np.zeros((1, 1, 28, 28), np.float32)
        with ServedModel(self._address, "resnet18_mnist") as model:
            while not self._end.wait(0.02):
                try:
                    model.infer(pixels)
                    self.answers += 1
                except ServerError as error:
                    self.failures.append(str(error))


def test_an_unknown_context_is_refused_before_anything_is_created(dev: Checkout, mnist_url: str) -> None:
    dev.configure(**settings(mnist_url))
    assert dev.pulumi("stack", "select", "--create").status == 0
    known = dev.pulumi("config", "get", "kubernetes:context").output.strip()
    dev.pulumi("config", "set", "kubernetes:context", "no-such-cluster")
    done = dev.run("up")
    dev.pulumi("config", "set", "kubernetes:context", known)
    assert done.status != 0
    assert "kubernetes:context is 'no-such-cluster'" in done, done.output
    assert "Traceback" not in done, done.output


def test_up_trains_serves_and_verifies_full_mnist(dev: Checkout, mnist_url: str) -> None:
    dev.configure(**settings(mnist_url))
    done = dev.run("up")
    assert done.status == 0, done.output
    assert set(uids(dev)) == set(STAGES), "every stage must be there"
    fetched = dev.tool("cluster", "report")
    assert fetched.status == 0, fetched.output
    results = json.loads((dev.root / "storage/dev/results/latest/results.json").read_text())
    assert results["accuracy"] >= 0.985, "one epoch must reach 98.5 % served through Triton"
    assert results["equal_to_pytorch"] == results["test_images"] == 10_000, "every prediction must be PyTorch's"
    assert "<svg" in (dev.root / "storage/dev/results/latest/report.html").read_text(), "the report must be fetched"


def test_the_endpoint_answers_from_outside_the_cluster(dev: Checkout) -> None:
    with ServedModel(endpoint(dev), "resnet18_mnist") as model:
        model.wait_ready(30)
        assert model.infer(np.zeros((3, 1, 28, 28), np.float32)).shape == (3, 10), "logits of three images"


def test_the_logs_are_fetched_out_of_the_claim(dev: Checkout) -> None:
    done = dev.tool("cluster", "logs")
    assert done.status == 0, done.output
    for stage in ("train", "export", "client"):
        assert f"{stage}.log" in done, done.output


def test_an_unchanged_up_changes_nothing(dev: Checkout) -> None:
    before = uids(dev)
    done = dev.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")
    assert done.status == 0, done.output
    assert uids(dev) == before, "no object may be replaced"


def test_a_client_change_runs_only_the_client_and_the_report(dev: Checkout) -> None:
    before = uids(dev)
    dev.edit("workloads/client.py", lambda code: code + "# changed\n")
    done = dev.run("up")
    assert done.status == 0, done.output
    after = uids(dev)
    changed = [stage for stage in STAGES if before[stage] != after[stage]]
    assert changed == ["client", "report"], "both are of the client's image, nothing else is"


def test_a_training_change_runs_all_after_it(dev: Checkout, mnist_url: str) -> None:
    """Triton is rolled on the way, under load: no request may fail."""
    before = uids(dev)
    dev.configure(**settings(mnist_url, seed=2))
    with Load(endpoint(dev)) as load:
        done = dev.run("up")
    assert done.status == 0, done.output
    assert load.answers > 1000, "the load must have lasted"
    assert load.failures == [], f"{len(load.failures)} of {load.answers} requests failed: {load.failures[:3]}"
    after = uids(dev)
    changed = [stage for stage in STAGES if before[stage] != after[stage]]
    assert changed == STAGES[1:], "all but prepare-data"


def test_every_manifest_is_accepted_by_the_api_server(dev: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    """By server-side dry run, in a namespace that enforces Pod Security restricted."""
    context = dev.pulumi("config", "get", "kubernetes:context").output.strip()
    declared = declare(
        monkeypatch,
        namespace=f"{NAMESPACE}-dry",
        clientNamespaces='["apps"]',
        tritonReplicas="2",
        operatorsGroup="ops",
        registryUser="me",
        registryPassword="secret",
    )
    manifests = [inputs for name, inputs in declared.inputs.items() if declared.types[name].startswith("kubernetes:")]
    namespace = [manifest for manifest in manifests if manifest["kind"] == "Namespace"]
    others = [manifest for manifest in manifests if manifest["kind"] != "Namespace"]
    kubectl_apply = ["kubectl", "--context", context, "apply", "--filename=-"]
    subprocess.run(kubectl_apply, input=json.dumps(namespace[0]), text=True, check=True, capture_output=True)
    try:
        content = json.dumps({"apiVersion": "v1", "kind": "List", "items": others})
        done = subprocess.run(
            [*kubectl_apply, "--dry-run=server"], input=content, text=True, check=False, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr, f"no pod may violate restricted: {done.stderr}"
        assert done.stdout.count("dry run") == len(others), done.stdout
    finally:
        delete = ["kubectl", "--context", context, "delete", "namespace", f"{NAMESPACE}-dry", "--wait=false"]
        subprocess.run(delete, check=True, capture_output=True)


@pytest.mark.parametrize("keep", [True, False])
def test_destroy_leaves_the_data_only_if_asked(dev: Checkout, mnist_url: str, keep: bool) -> None:
    dev.configure(**settings(mnist_url, seed=2, keepData=str(keep).lower(), runThrough="prepare-data"))
    assert dev.run("up").status == 0, "the setting must be taken over"
    assert dev.run("down").status == 0, "destroy must succeed"
    context = dev.pulumi("config", "get", "kubernetes:context").output.strip()
    command = ["kubectl", "--context", context, "get", "namespace", NAMESPACE, "--ignore-not-found", "--output=name"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not keep:
        assert found == "", "nothing may be left"
        return
    claims = [item["metadata"]["name"] for item in kubectl(dev, "get", "persistentvolumeclaims")["items"]]
    assert claims == ["model-log"], "the claim must stay"
    assert kubectl(dev, "get", "jobs,deployments,services,pods")["items"] == [], "and nothing else"
