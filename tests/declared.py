"""Declare each target against Pulumi's mocks, and keep what it registered."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pytest
from pulumi.runtime import mocks, register_stack_transformation, rpc
from pulumi.runtime.stack import wait_for_rpcs

from pipeline.cluster import Cluster
from pipeline.components.monitoring import OPERATOR_GROUP
from pipeline.settings import Settings, load_settings
from pipeline.stages import Stage, stages_through
from pipeline.targets import kubernetes
from pipeline.targets.base import Target, deploy
from pipeline.targets.local import LocalTarget
from tests.unit.test_settings import defaults

DIGEST = "sha256:" + "0" * 64
CLUSTER = Cluster(context="minikube", node_address="192.0.2.1", api_groups=frozenset({"apps", OPERATOR_GROUP}))
WORKLOAD_KINDS = ("kubernetes:batch/v1:Job", "kubernetes:apps/v1:Deployment")


@dataclass(frozen=True)
class Options:
    """What the program says of a resource, before Pulumi resolves components to what is in them."""

    kind: str
    parent: str | None
    depends_on: frozenset[str]
    provider: str | None
    timeouts: frozenset[tuple[str, str]]  # (operation, time as in 10m)


@dataclass
class Declared:
    """What the program registered, by resource name."""

    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    dependencies: dict[str, set[str]] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    secrets: set[tuple[str, str]] = field(default_factory=set)  # (resource, property) that Pulumi encrypts in the state
    options: dict[str, Options] = field(default_factory=dict)  # in the order of declaration
    complete: bool = False

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
        if args.typ == "process:index:Server":
            outputs["ports"] = args.inputs["wantedPorts"]
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
    """Run the program's declarations for Kubernetes to their end."""
    monkeypatch.setattr(kubernetes, "connect", lambda _context: CLUSTER)
    settings = _settings({"kubernetes:context": CLUSTER.context}, changes)
    return _declared("dev", settings, stages, lambda: kubernetes.KubernetesTarget(settings, "dev", kubeconfig="{}"))


def declare_local(stages: tuple[Stage, ...] | None = None, **changes: str) -> Declared:
    """The same for the processes of this machine."""
    settings = _settings({"mnist:platform": "local"}, changes)
    return _declared("local", settings, stages, lambda: LocalTarget(settings, "local"))


def _settings(config: dict[str, str], changes: dict[str, str]) -> Settings:
    return load_settings({**defaults(), **config, **{f"mnist:{key}": value for key, value in changes.items()}}, {})


def _declared(
    stack: str, settings: Settings, stages: tuple[Stage, ...] | None, make_target: Callable[[], Target]
) -> Declared:
    declared = Declared()

    async def program() -> None:
        monitor = RecordingMonitor(declared)
        mocks.set_mocks(monitor.mocks, project="mnist", stack=stack, preview=False, monitor=monitor)
        register_stack_transformation(lambda args: _record_options(declared, args))
        target = make_target()
        deploy(stages or stages_through(settings.run_through), target)
        for name, value in target.outputs().items():
            declared.outputs[name] = await value.future() if isinstance(value, pulumi.Output) else value
        await wait_for_rpcs()

    asyncio.run(program())
    declared.complete = True
    return declared


def _record_options(declared: Declared, args: pulumi.ResourceTransformationArgs) -> None:
    """Pulumi has no way to take a transformation back, so this one is deaf once its program has run."""
    if declared.complete:
        return
    parent, depends_on, timeouts = args.opts.parent, args.opts.depends_on or [], args.opts.custom_timeouts
    needed = [depends_on] if isinstance(depends_on, pulumi.Resource) else depends_on
    assert isinstance(needed, list), f"{args.name} must say what it depends on when it is declared"
    providers = args.opts.providers or []
    assert isinstance(providers, list | dict)
    [provider] = (providers.values() if isinstance(providers, dict) else providers) or [None]
    declared.options[args.name] = Options(
        kind=args.type_,
        parent=_name(parent) if parent is not None else None,
        depends_on=frozenset(_name(resource) for resource in needed),
        provider=_name(provider) if provider is not None else None,
        timeouts=frozenset((key, value) for key, value in vars(timeouts).items() if value) if timeouts else frozenset(),
    )


def _name(resource: Any) -> str:
    return str(resource._name)  # the URN holds it too, but only later
