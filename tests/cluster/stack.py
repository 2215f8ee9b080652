"""Stack dev as the tests of this folder see it. They run in order, on one stack: each goes on from what was left."""

import json
import os
import subprocess
from typing import Any

import yaml

from tests.checkout import Checkout

NAMESPACE = os.environ.get("TEST_NAMESPACE", "mnist-test")
MODEL = "resnet18_mnist"
STAGES = ["prepare-data", "train", "export", "triton", "client", "report"]
GOOD = {"learningRate": "0.001"}  # reaches 0.9877 in one epoch
BETTER = {"learningRate": "0.004"}  # 0.9917


def settings(mnist_url: str, **changes: Any) -> dict[str, Any]:
    """`BUILD_NETWORK` is for Docker daemons whose default network reaches nothing."""
    network = {"buildNetwork": os.environ["BUILD_NETWORK"]} if os.environ.get("BUILD_NETWORK") else {}
    common = {"namespace": NAMESPACE, "datasetUrl": mnist_url, "minAccuracy": "0.985", "serviceType": "NodePort"}
    return {**common, **network, **changes}


def context(dev: Checkout) -> str:
    """Out of the stack's file: while an `up` runs, another pulumi may find the state half-written."""
    content = yaml.safe_load((dev.root / f"Pulumi.{dev.stack}.yaml").read_text(encoding="utf-8"))
    return str(content["config"]["kubernetes:context"])


def kubectl(dev: Checkout, *arguments: str) -> str:
    command = ["kubectl", "--context", context(dev), "--namespace", NAMESPACE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def objects(dev: Checkout, kinds: str, *arguments: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(kubectl(dev, "get", kinds, *arguments, "--output=json"))["items"]
    return items


def pods(dev: Checkout, stage: str) -> list[str]:
    """The names of a stage's pods that are not on their way out."""
    found = objects(dev, "pods", f"--selector=app.kubernetes.io/name={stage}")
    return [item["metadata"]["name"] for item in found if "deletionTimestamp" not in item["metadata"]]


def uids(dev: Checkout) -> dict[str, str]:
    """Which object each stage is: a Job's uid, the Deployment's revision."""
    found = {item["metadata"]["name"]: item["metadata"]["uid"] for item in objects(dev, "jobs")}
    for item in objects(dev, "deployments"):
        found[item["metadata"]["name"]] = item["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
    return found


def endpoint(dev: Checkout) -> str:
    return dev.pulumi("stack", "output", "triton_endpoint").output.strip()


def results(dev: Checkout) -> dict[str, Any]:
    fetched = dev.tool("cluster", "report")
    assert fetched.status == 0, fetched.output
    content: dict[str, Any] = json.loads((dev.storage / "results/latest/results.json").read_text())
    return content


def finished(dev: Checkout, stage: str) -> list[dict[str, Any]]:
    """What the stage's runs said at their end, out of the claim."""
    fetched = dev.tool("cluster", "logs")
    assert fetched.status == 0, fetched.output
    return [event for event in dev.events(stage) if event["event"] == "finished"]
