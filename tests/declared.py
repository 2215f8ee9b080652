"""Declare the Kubernetes target against Pulumi's mocks, and keep what it registered."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pytest
from pulumi.runtime import mocks, rpc
from pulumi.runtime.stack import wait_for_rpcs

from pipeline.cluster import Cluster
from pipeline.settings import load_settings
from pipeline.stages import Stage, stages_through
from pipeline.targets import kubernetes
from pipeline.targets.base import deploy
from tests.unit.test_settings import defaults

DIGEST = "sha256:" + "0" * 64
WORKLOAD_KINDS = ("kubernetes:batch/v1:Job", "kubernetes:apps/v1:Deployment")


@dataclass
class Declared:
    """What the program registered, by resource name."""

    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    dependencies: dict[str, set[str]] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    secrets: set[tuple[str, str]] = field(default_factory=set)  # (resource, property) that Pulumi encrypts in the state

    def of_type(self, suffix: str) -> list[dict[str, Any]]:
        return [self.inputs[name] for name, kind in self.types.items() if kind.endswith(suffix)]

    def pods(self) -> dict[str, dict[str, Any]]:
        return {
            name: self.inputs[name]["spec"]["template"] for name, kind in self.types.items() if kind in WORKLOAD_KINDS
        }


class Recorder(mocks.Mocks):
    def __init__(self, declared: Declared) -> None:
        self.declared = declared

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        self.declared.types[args.name] = args.typ
        self.declared.inputs[args.name] = {key: rpc.unwrap_rpc_secret(value) for key, value in args.inputs.items()}
        self.declared.secrets |= {(args.name, key) for key, value in args.inputs.items() if rpc.is_rpc_secret(value)}
        outputs = dict(args.inputs)
        if args.typ == "docker:index/image:Image":
            outputs["repoDigest"] = f"{args.inputs['imageName'].rpartition(':')[0]}@{DIGEST}"
        if args.typ == "kubernetes:core/v1:Service":
            ports = [{**port, "nodePort": 30000 + index} for index, port in enumerate(args.inputs["spec"]["ports"])]
            outputs["spec"] = {**args.inputs["spec"], "ports": ports}
            outputs["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}
        return f"{args.name}-id", outputs

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        return {}, None


class RecordingMonitor(mocks.MockMonitor):
    def __init__(self, declared: Declared) -> None:
        super().__init__(Recorder(declared))
        self.declared = declared

    def RegisterResource(self, request: Any) -> Any:
        self.declared.dependencies[request.name] = {urn.rpartition("::")[2] for urn in request.dependencies}
        return super().RegisterResource(request)  # type: ignore[no-untyped-call]


def declare(monkeypatch: pytest.MonkeyPatch, stages: tuple[Stage, ...] | None = None, **changes: str) -> Declared:
    """Run the program's declarations to their end."""
    declared = Declared()
    monkeypatch.setattr(kubernetes, "connect", lambda context: Cluster(context=context, node_address="192.0.2.1"))
    config = {
        **defaults(),
        "kubernetes:context": "minikube",
        **{f"mnist:{key}": value for key, value in changes.items()},
    }
    settings = load_settings(config, {})

    async def program() -> None:
        monitor = RecordingMonitor(declared)
        mocks.set_mocks(monitor.mocks, project="mnist", stack="dev", preview=False, monitor=monitor)
        target = kubernetes.KubernetesTarget(settings, "dev", kubeconfig="{}")
        deploy(stages or stages_through(settings.run_through), target)
        for name, value in target.outputs().items():
            declared.outputs[name] = await value.future() if isinstance(value, pulumi.Output) else value
        await wait_for_rpcs()

    asyncio.run(program())
    return declared
