"""What all pods have in common: labels, and a security context that passes Pod Security *restricted*."""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

UID = 1000
CPU_OVERCOMMIT = 4  # a container may use so many times the CPUs it asks the scheduler for
STORAGE_PATH = "/storage"
PART_OF = "mnist-triton"
PYTHON = "/opt/venv/bin/python"
APP = "/app"
GPU = "nvidia.com/gpu"  # the name NVIDIA's device plugin gives them


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Limits of one container; memory in Kubernetes' notation. GPUs are NVIDIA's, whole ones."""

    cpus: int
    memory: str
    gpus: int = 0


def labels(name: str, component: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": PART_OF,
        "app.kubernetes.io/managed-by": "pulumi",
    }


def selector(name: str) -> dict[str, str]:
    """The labels that find a workload's pods; unlike the others they can never change."""
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": PART_OF}


def pod_security() -> k8s.core.v1.PodSecurityContextArgs:
    return k8s.core.v1.PodSecurityContextArgs(
        run_as_non_root=True,
        run_as_user=UID,
        run_as_group=UID,
        fs_group=UID,  # volumes of most storage classes become writable for us by it
        fs_group_change_policy="OnRootMismatch",
        seccomp_profile=k8s.core.v1.SeccompProfileArgs(type="RuntimeDefault"),
    )


def container_security() -> k8s.core.v1.SecurityContextArgs:
    return k8s.core.v1.SecurityContextArgs(
        allow_privilege_escalation=False,
        read_only_root_filesystem=True,
        run_as_non_root=True,
        capabilities=k8s.core.v1.CapabilitiesArgs(drop=["ALL"]),
        seccomp_profile=k8s.core.v1.SeccompProfileArgs(type="RuntimeDefault"),
    )


def requirements(resources: Resources) -> k8s.core.v1.ResourceRequirementsArgs:
    """Memory is not overcommitted; CPUs are, so that a rollout and its client fit on a node of two."""
    return k8s.core.v1.ResourceRequirementsArgs(
        requests={"cpu": f"{1000 * resources.cpus // CPU_OVERCOMMIT}m", "memory": resources.memory},
        limits={
            "cpu": str(resources.cpus),
            "memory": resources.memory,
            **({GPU: str(resources.gpus)} if resources.gpus else {}),
        },
    )


def environment(more: Mapping[str, str] | None = None) -> list[k8s.core.v1.EnvVarArgs]:
    values = {"HOME": "/tmp", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", **(more or {})}
    return [k8s.core.v1.EnvVarArgs(name=name, value=value) for name, value in values.items()]


def policy_port(number: int, protocol: str) -> k8s.networking.v1.NetworkPolicyPortArgs:
    return k8s.networking.v1.NetworkPolicyPortArgs(port=number, protocol=protocol)


def dns_ports() -> list[k8s.networking.v1.NetworkPolicyPortArgs]:
    return [policy_port(53, "UDP"), policy_port(53, "TCP")]


def secret_environment(secret: str | None) -> list[k8s.core.v1.EnvFromSourceArgs] | None:
    """Every entry of the Secret as a variable."""
    if secret is None:
        return None
    return [k8s.core.v1.EnvFromSourceArgs(secret_ref=k8s.core.v1.SecretEnvSourceArgs(name=secret))]


def storage_mount(read_only: bool = False) -> k8s.core.v1.VolumeMountArgs:
    return k8s.core.v1.VolumeMountArgs(name="storage", mount_path=STORAGE_PATH, read_only=read_only)


def storage_volume(claim: pulumi.Input[str], read_only: bool = False) -> k8s.core.v1.VolumeArgs:
    source = k8s.core.v1.PersistentVolumeClaimVolumeSourceArgs(claim_name=claim, read_only=read_only)
    return k8s.core.v1.VolumeArgs(name="storage", persistent_volume_claim=source)


def scratch_mounts(paths: Mapping[str, str]) -> list[k8s.core.v1.VolumeMountArgs]:
    """Writable directories beside the read-only root, by volume name."""
    return [k8s.core.v1.VolumeMountArgs(name=name, mount_path=path) for name, path in paths.items()]


def scratch_volume(name: str, size: str, in_memory: bool = False) -> k8s.core.v1.VolumeArgs:
    source = k8s.core.v1.EmptyDirVolumeSourceArgs(size_limit=size, medium="Memory" if in_memory else None)
    return k8s.core.v1.VolumeArgs(name=name, empty_dir=source)
