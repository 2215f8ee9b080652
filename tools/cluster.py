"""Look into a stack's claim on Kubernetes: a short-lived pod that mounts it read-only.

python tools/cluster.py inspect|logs|report STACK
"""

import contextlib
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from stack import ROOT, StackError, outputs, pulumi_quietly, run_command

INSPECTOR = "inspector"
LIVES_SECONDS = 3600
READY_SECONDS = 120


@dataclass(frozen=True)
class Cluster:
    """kubectl, bound to the stack's context and namespace."""

    context: str
    namespace: str

    def command(self, *arguments: str) -> list[str]:
        return ["kubectl", "--context", self.context, "--namespace", self.namespace, *arguments]

    def run(self, *arguments: str, content: str | None = None) -> str:
        try:
            done = subprocess.run(self.command(*arguments), input=content, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise StackError("kubectl is missing: https://kubernetes.io/docs/tasks/tools") from None
        if done.returncode != 0:
            raise StackError(f"kubectl {arguments[0]}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
        return done.stdout


def cluster_of(stack: str) -> Cluster:
    namespace = outputs(stack).get("namespace")
    if namespace is None:
        raise StackError(f"stack {stack} is not on Kubernetes, or not up: run `make up STACK={stack}`")
    context = pulumi_quietly(stack, "config", "get", "kubernetes:context", "--stack", stack).stdout.strip()
    return Cluster(context, namespace)


def manifest(job: dict[str, Any], claim: str) -> dict[str, Any]:
    """The inspector: image and security context of one of the stack's own Jobs, the claim read-only."""
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": INSPECTOR,
            "labels": {"app.kubernetes.io/name": INSPECTOR, "app.kubernetes.io/part-of": "mnist-triton"},
        },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "activeDeadlineSeconds": LIVES_SECONDS,
            "terminationGracePeriodSeconds": 1,
            "securityContext": pod["securityContext"],
            "imagePullSecrets": pod.get("imagePullSecrets", []),
            "containers": [
                {
                    "name": INSPECTOR,
                    "image": container["image"],
                    "command": ["sleep", str(LIVES_SECONDS)],
                    "resources": {"limits": {"cpu": "100m", "memory": "128Mi"}},
                    "securityContext": container["securityContext"],
                    "volumeMounts": [{"name": "storage", "mountPath": "/storage", "readOnly": True}],
                }
            ],
            "volumes": [{"name": "storage", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}],
        },
    }


@contextlib.contextmanager
def inspector(cluster: Cluster, claim: str) -> Iterator[None]:
    """The pod, for as long as it is needed."""
    jobs = json.loads(cluster.run("get", "jobs", "--selector=app.kubernetes.io/part-of=mnist-triton", "--output=json"))
    if not jobs["items"]:
        raise StackError(f"namespace {cluster.namespace} has no Jobs of this stack: run `make up STACK=dev`")
    cluster.run("delete", "pod", INSPECTOR, "--ignore-not-found", "--wait")
    cluster.run("apply", "--filename=-", content=json.dumps(manifest(jobs["items"][0], claim)))
    try:
        cluster.run("wait", f"pod/{INSPECTOR}", "--for=condition=Ready", f"--timeout={READY_SECONDS}s")
        yield
    finally:
        cluster.run("delete", "pod", INSPECTOR, "--ignore-not-found", "--wait=false")


def fetch(cluster: Cluster, path: str, destination: Path, without: Sequence[str] = ()) -> None:
    """Copy a directory below /storage to this machine; links are followed, so that `latest` is a directory here."""
    destination.mkdir(parents=True, exist_ok=True)
    options = ["--dereference", *(f"--exclude={name}" for name in without)]
    command = cluster.command("exec", INSPECTOR, "--", "tar", *options, "-c", "-C", f"/storage/{path}", ".")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        _extract(process.stdout, destination)
    if process.returncode != 0:
        raise StackError(f"/storage/{path} cannot be read: has the stage that writes it run?")


def _extract(stream: IO[bytes], destination: Path) -> None:
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            archive.extractall(destination, filter="data")
    except tarfile.ReadError:
        return  # nothing came; the exit status says why


def inspect(stack: str) -> int:
    cluster, claim = cluster_of(stack), outputs(stack)["storage"]
    with inspector(cluster, claim):
        print("the claim is at /storage, read-only; the pod goes when you leave")
        return subprocess.call(
            cluster.command("exec", "--stdin", "--tty", INSPECTOR, "--", "sh", "-c", "cd /storage; sh")
        )


def logs(stack: str) -> int:
    cluster, claim = cluster_of(stack), outputs(stack)["storage"]
    destination = ROOT / "storage" / stack / "logs"
    with inspector(cluster, claim):
        fetch(cluster, "logs", destination)
    for path in sorted(destination.glob("*.log")):
        print(path)
    return 0


def report(stack: str) -> int:
    cluster, claim = cluster_of(stack), outputs(stack)["storage"]
    destination = ROOT / "storage" / stack / "results" / "latest"
    with inspector(cluster, claim):
        fetch(cluster, "results/latest", destination)
    print(destination / "report.html")
    return 0


if __name__ == "__main__":
    sys.exit(run_command({"inspect": inspect, "logs": logs, "report": report}, __doc__))
