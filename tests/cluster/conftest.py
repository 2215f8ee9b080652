"""Stack dev on a real cluster, in a copy of this checkout; skips, saying what is missing, where there is none."""

import functools
import http.server
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from kubernetes import config as kubernetes_config
from kubernetes.config.config_exception import ConfigException

from tests.checkout import ROOT, Checkout, make_checkout

PLUGINS = ("pulumi-resource-kubernetes", "pulumi-resource-docker")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """An `up` that builds images takes longer than other tests may."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(3600))


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


@pytest.fixture(scope="session")
def mnist_url() -> Iterator[str]:
    """MNIST's files, served to the pods from this machine."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=os.environ["MNIST_DIR"])
    with http.server.ThreadingHTTPServer(("0.0.0.0", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{own_address()}:{server.server_port}"
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


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    made = cluster_checkout(tmp_path_factory)
    yield made
    made.run("down")


def cluster_checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy of the checkout whose stack dev is on the cluster: KUBE_CONTEXT, else the kubeconfig's current one."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    made = make_checkout(tmp_path_factory.mktemp("checkout"), "dev")
    _, active = kubernetes_config.list_kube_config_contexts()
    path = made.root / "Pulumi.dev.yaml"
    content = yaml.safe_load(path.read_text())
    content["config"]["kubernetes:context"] = os.environ.get("KUBE_CONTEXT") or active["name"]
    path.write_text(yaml.safe_dump(content))
    return made
