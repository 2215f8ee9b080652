"""The only reader of configuration: Pulumi.<stack>.yaml's `mnist:` keys, validated before anything is created."""

import contextlib
import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from pipeline.errors import ConfigurationError
from pipeline.stages import STAGES

NAMESPACE = "mnist"
ROOT = Path(__file__).resolve().parents[2]

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
DNS_LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
Quantity = Annotated[str, Field(pattern=r"^[1-9]\d*(Ki|Mi|Gi|Ti)$")]  # Kubernetes' notation of bytes
KUBERNETES_CPUS = 2  # Triton's there, when tritonCpus is 0


class Settings(BaseModel):
    """Every setting under its name in snake_case. Defaults and descriptions are in Pulumi.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    platform: Literal["kubernetes", "local"]
    run_through: str

    dataset: Literal["mnist", "digits", "custom", "auto"]
    dataset_dir: str
    dataset_url: Annotated[str, Field(pattern=r"^(https?://\S+)?$")]

    epochs: Annotated[int, Field(ge=0, le=1000)]
    batch_size: Annotated[int, Field(ge=2, le=8192)]
    learning_rate: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)]
    target_accuracy: Share
    checkpoint_every: Count

    model_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]
    min_accuracy: Share
    keep_versions: Count
    served_version: Annotated[int, Field(ge=0)]
    auto_rollback: bool

    triton_cpus: Annotated[int, Field(ge=0, le=1024)]
    queue_delay_microseconds: Annotated[int, Field(ge=0, le=1_000_000)]
    max_latency_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    namespace: Annotated[str, Field(pattern=DNS_LABEL)]
    kube_context: str  # kubernetes:context, which is no key of ours
    registry: Annotated[str, Field(pattern=r"^[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)*$")]
    registry_user: str
    registry_password: SecretStr
    build_network: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*$")]
    build_args: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*=")], ...]
    triton_image: Annotated[str, Field(pattern=r"^\S+$")]
    triton_replicas: Annotated[int, Field(ge=1, le=1000)]
    triton_memory: Quantity
    train_cpus: Annotated[int, Field(ge=1, le=1024)]
    train_memory: Quantity
    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"]
    client_namespaces: tuple[Annotated[str, Field(pattern=DNS_LABEL)], ...]
    operators_group: str
    storage_class: Annotated[str, Field(pattern=r"^[a-z0-9.-]*$")]
    storage_size: Quantity

    storage_dir: str
    keep_data: bool
    stage_timeout_minutes: Annotated[int, Field(ge=1, le=7 * 24 * 60)]

    @field_validator("run_through")
    @classmethod
    def _is_a_stage(cls, value: str) -> str:
        names = [stage.name for stage in STAGES]
        if value not in names:
            raise ValueError(f"must be one of {', '.join(names)}")
        return value

    @field_validator("dataset_dir", "storage_dir")
    @classmethod
    def _is_a_path(cls, value: str) -> str:
        if re.search(r"[\x00-\x1f]", value):
            raise ValueError("must be a path without control characters")
        try:
            Path(value).expanduser()
        except RuntimeError:
            raise ValueError("must be a path; no home directory is known for its ~") from None
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.dataset == "custom" and not (self.dataset_dir or self.dataset_url):
            raise ValueError("dataset custom needs datasetDir or datasetUrl")
        if self.platform == "kubernetes" and self.dataset_dir:
            raise ValueError("datasetDir is a directory of this machine, pods cannot read it: use datasetUrl")
        if self.auto_rollback and self.platform == "kubernetes" and self.triton_image != "slim":
            raise ValueError(
                "autoRollback needs tritonImage slim: the launcher in it restarts Triton on another version"
            )
        if bool(self.registry_user) != bool(self.registry_password.get_secret_value()):
            raise ValueError("registryUser and registryPassword go together: set both, or none")
        return self

    @property
    def serving_cpus(self) -> int:
        """Kubernetes: the CPU limit of a Triton pod."""
        return self.triton_cpus or KUBERNETES_CPUS

    def storage_path(self, stack: str) -> Path:
        """Stack local: the absolute path of the storage directory."""
        return (ROOT / (Path(self.storage_dir).expanduser() if self.storage_dir else Path("storage", stack))).resolve()

    def dataset_path(self) -> Path | None:
        """The absolute path of datasetDir; relative ones count from the project's root."""
        return (ROOT / Path(self.dataset_dir).expanduser()).resolve() if self.dataset_dir else None


def load_settings(config: Mapping[str, str], environment: Mapping[str, str]) -> Settings:
    """Read and validate all settings.

    Args:
        config: Pulumi's whole configuration, `mnist:key` → value as text; other namespaces are left alone.
        environment: MNIST_DIR there is datasetDir's default.

    Raises:
        ConfigurationError: names every wrong key, its value, and what is accepted.
    """
    prefix = f"{NAMESPACE}:"
    values = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
    if not values.get("datasetDir") and values.get("platform") == "local":
        values["datasetDir"] = environment.get("MNIST_DIR", "")
    values["kubeContext"] = config.get("kubernetes:context", "")
    try:
        return Settings.model_validate({key: _decoded(value) for key, value in values.items()})
    except ValidationError as error:
        problems = [_explain(problem, values) for problem in error.errors(include_url=False)]
        raise ConfigurationError("; ".join(problems)) from None


def _decoded(value: str) -> Any:
    """Pulumi hands lists over as JSON."""
    if value.startswith("["):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return value


def _explain(problem: Mapping[str, Any], values: Mapping[str, str]) -> str:
    key = str(problem["loc"][0]) if problem["loc"] else ""
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not key:
        return message
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, [to_camel(name) for name in Settings.model_fields], n=1)
        hint = f"; did you mean {NAMESPACE}:{near[0]}?" if near else "; Pulumi.yaml lists the settings"
        return f"{NAMESPACE}:{key} is not a setting{hint}"
    if problem["type"] == "missing":
        return f"{NAMESPACE}:{key} is not set: set it, or restore its default in Pulumi.yaml"
    if key == to_camel("registry_password"):
        return f"{NAMESPACE}:{key}: {message}"  # its value is nobody's business
    return f"{NAMESPACE}:{key} is {values[key]!r}: {message[0].lower()}{message[1:]}"
