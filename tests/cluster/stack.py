"""Stack dev as the tests of this folder see it. They run in order, on one stack: each goes on from what was left."""

import contextlib
import functools
import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml
from kubernetes import config as kubernetes_config
from kubernetes.config.config_exception import ConfigException

from tests.checkout import ROOT, Checkout, make_checkout

PLUGINS = ("pulumi-resource-kubernetes", "pulumi-resource-docker")

NAMESPACE = os.environ.get("TEST_NAMESPACE", "mnist-test")
MODEL = "resnet18_mnist"
STAGES = ["prepare-data", "train", "export", "triton", "client", "report"]
GOOD = {"learningRate": "0.001"}  # reaches 0.9877 in one epoch
BETTER = {"learningRate": "0.004"}  # 0.9917


def missing() -> str | None:
    """What these tests need and do not find, or None."""
    path = f"{ROOT}/.tools/bin:{os.environ['PATH']}"
    home = Path(os.environ.get("PULUMI_HOME", Path.home() / ".pulumi"))
    for plugin in PLUGINS:
        installed = list(home.glob(f"plugins/*{plugin.rpartition('-')[2]}*"))
        if not installed and shutil.which(plugin, path=path) is None:
            return f"Pulumi's plugin {plugin} is missing: `pulumi plugin install`, or put it on PATH"
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        return "Docker does not answer: start it, or set DOCKER_HOST"
    if not os.environ.get("KUBECONFIG"):
        return "KUBECONFIG is not set: name the kubeconfig of a cluster that may be used"
    try:
        kubernetes_config.list_kube_config_contexts()
    except ConfigException as error:
        return f"KUBECONFIG names no usable cluster: {error}"
    if not Path(os.environ.get("MNIST_DIR") or "/nowhere").is_dir():
        return "MNIST_DIR names no directory with MNIST's files"
    return None


def on_cluster(root: Path) -> Checkout:
    """A copy of the checkout whose stack dev is on the cluster: KUBE_CONTEXT, else the kubeconfig's current one."""
    made = make_checkout(root, "dev")
    _, active = kubernetes_config.list_kube_config_contexts()
    path = made.root / "Pulumi.dev.yaml"
    content = yaml.safe_load(path.read_text())
    content["config"]["kubernetes:context"] = os.environ.get("KUBE_CONTEXT") or active["name"]
    path.write_text(yaml.safe_dump(content))
    return made


@contextlib.contextmanager
def served(directory: str) -> Iterator[str]:
    """The URL at which pods find the files of a directory of this machine."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=directory)
    with http.server.ThreadingHTTPServer(("0.0.0.0", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{own_address()}:{server.server_port}"
        finally:
            server.shutdown()


def own_address() -> str:
    """An address of this machine that pods can reach."""
    addresses = [
        entry.address
        for name, entries in sorted(psutil.net_if_addrs().items())
        for entry in entries
        if entry.family == socket.AF_INET
        and not entry.address.startswith("127.")
        and not name.startswith(("veth", "cni"))
    ]
    return os.environ.get("MNIST_HOST") or addresses[0]


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
