"""The only reader of configuration: Pulumi.<stack>.yaml's `mnist:` keys, validated before anything is created."""

import difflib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from pipeline.errors import ConfigurationError
from pipeline.stages import STAGES

NAMESPACE = "mnist"
ROOT = Path(__file__).resolve().parents[2]

# What pydantic says of text that is no such thing, in fewer words.
KINDS = {
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
}
CONTEXT = "kubernetes:context"  # Pulumi's own key, read with ours
SECRETS = ("registryPassword", "s3SecretAccessKey")
LONGEST_SHOWN = 80  # characters of a wrong value
LONGEST_NAME = 255  # bytes of a file's name


def _text(pattern: str, meaning: str) -> AfterValidator:
    """Text that matches `pattern` as a whole; `meaning` is what the user is told. Classes are ASCII's."""

    def check(value: str | SecretStr) -> str | SecretStr:
        if not re.fullmatch(pattern, value if isinstance(value, str) else value.get_secret_value(), re.ASCII):
            raise ValueError(f"must be {meaning}")
        return value

    return AfterValidator(check)


def _listed(value: object) -> object:
    """Pulumi hands lists over as JSON."""
    try:
        decoded = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        decoded = None
    if not isinstance(decoded, list | tuple):
        raise ValueError('must be a list, such as ["one", "two"]')
    return decoded


Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Listed = BeforeValidator(_listed)
PLAIN = _text(r"[^\x00-\x1f\x7f]*", "one line without control characters")
Plain = Annotated[str, PLAIN]
DNS_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
DNS_MEANING = "lower-case letters, digits and inner hyphens, 63 at most"
DnsLabel = Annotated[str, _text(DNS_LABEL, DNS_MEANING)]
Quantity = Annotated[str, _text(r"[1-9]\d{0,8}(Ki|Mi|Gi|Ti)", "a whole number of Ki, Mi, Gi or Ti, such as 4Gi")]
KUBERNETES_CPUS = 2  # Triton's there, when tritonCpus is 0
# Triton's own notation: https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_repository.md
S3_URL = r"(s3://((https?://)?[a-zA-Z0-9.-]+:\d{1,5}/)?[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[a-zA-Z0-9._-]+)*)?"
S3_MEANING = "s3://bucket/path or s3://https://host:port/bucket/path, or empty for the storage"


class Settings(BaseModel):
    """Every setting under its name in snake_case. Defaults and descriptions are in Pulumi.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    platform: Literal["kubernetes", "local"]
    run_through: str

    dataset: Literal["mnist", "digits", "custom", "auto"]
    dataset_dir: str
    dataset_url: Annotated[
        str,
        # Addresses are shown in logs and command lines, so they are no place for credentials.
        _text(
            r"(https?://[^\s\x00-\x1f\x7f@/]+(/[^\s\x00-\x1f\x7f]*)?)?",
            "http://… or https://…, without a user or password",
        ),
    ]

    epochs: Annotated[int, Field(ge=0, le=1000)]
    batch_size: Annotated[int, Field(ge=2, le=8192)]
    learning_rate: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)]
    target_accuracy: Share
    checkpoint_every: Count
    train_workers: Annotated[int, Field(ge=1, le=64)]

    model_name: Annotated[
        str, _text(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", "letters, digits, _ and -, 63 at most, a letter or digit first")
    ]
    min_accuracy: Share
    precision: Literal["fp32", "int8"]
    keep_versions: Count
    served_version: Annotated[int, Field(ge=0)]
    auto_rollback: bool
    model_repository: Annotated[str, _text(S3_URL, S3_MEANING)]
    s3_access_key_id: Plain
    s3_secret_access_key: Annotated[SecretStr, PLAIN]
    s3_region: Annotated[str, _text(r"[a-z0-9-]+", "a region's name, such as us-east-1")]

    accelerator: Literal["none", "nvidia"]
    triton_cpus: Annotated[int, Field(ge=0, le=1024)]
    queue_delay_microseconds: Annotated[int, Field(ge=0, le=1_000_000)]
    max_latency_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    namespace: DnsLabel
    kube_context: Annotated[str, Field(alias=CONTEXT)]
    registry: Annotated[
        str, _text(r"[a-z0-9.-]+(:\d{1,5})?(/[a-z0-9._-]+)*", "host[:port][/path], without http:// before it")
    ]
    registry_user: Plain
    registry_password: Annotated[SecretStr, PLAIN]
    build_network: Annotated[str, _text(r"[\w.-]*", "the name of a Docker network")]
    build_args: Annotated[tuple[Annotated[str, _text(r"[A-Za-z_]\w*=[^\x00-\x1f\x7f]*", "NAME=value")], ...], Listed]
    triton_image: Annotated[str, _text(r"[\w./:@-]+", "slim, ngc or an image's reference")]
    triton_replicas: Annotated[int, Field(ge=1, le=1000)]
    triton_max_replicas: Annotated[int, Field(ge=0, le=1000)]
    autoscale_metric: Literal["cpu", "queueTime"]
    triton_memory: Quantity
    train_cpus: Annotated[int, Field(ge=1, le=1024)]
    train_memory: Quantity
    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"]
    client_namespaces: Annotated[tuple[DnsLabel, ...], Listed]
    operators_group: Plain
    monitoring: Literal["none", "annotations", "operator"]
    monitoring_namespace: Annotated[str, _text(f"({DNS_LABEL})?", DNS_MEANING)]
    max_run_age_days: Annotated[int, Field(ge=1, le=365)]
    storage_class: Annotated[str, _text(r"[a-z0-9.-]*", "a storage class: lower-case letters, digits, . and -")]
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
        if any(len(os.fsencode(part)) > LONGEST_NAME for part in Path(value).parts):
            raise ValueError(f"must be a path; no part of it may be longer than {LONGEST_NAME} bytes")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.dataset == "custom" and not (self.dataset_dir or self.dataset_url):
            raise ValueError("dataset custom needs datasetDir or datasetUrl")
        if self.platform == "kubernetes" and self.dataset_dir:
            raise ValueError("datasetDir is a directory of this machine, pods cannot read it: use datasetUrl")
        if self.batch_size < 2 * self.train_workers:
            raise ValueError(
                "batchSize must be at least twice trainWorkers: batch norm needs two images of each worker"
            )
        if self.auto_rollback and self.platform == "kubernetes" and self.triton_image != "slim":
            raise ValueError(
                "autoRollback needs tritonImage slim: the launcher in it restarts Triton on another version"
            )
        self._check_scaling()
        self._check_model_repository()
        if bool(self.registry_user) != bool(self.registry_password.get_secret_value()):
            raise ValueError("registryUser and registryPassword go together: set both, or none")
        return self

    def _check_scaling(self) -> None:
        if self.triton_max_replicas and self.triton_max_replicas < self.triton_replicas:
            raise ValueError(
                f"tritonMaxReplicas {self.triton_max_replicas} is below tritonReplicas {self.triton_replicas}: "
                "raise it, or set 0 for a fixed number"
            )
        if self.accelerator == "nvidia" and self.platform == "kubernetes" and self.triton_image == "slim":
            raise ValueError(
                "accelerator nvidia needs tritonImage ngc or an image's reference: slim serves on CPUs alone"
            )
        if self.accelerator == "nvidia" and self.precision == "int8" and self.platform == "kubernetes":
            raise ValueError("precision int8 is for CPUs: with accelerator nvidia set fp32")

    def _check_model_repository(self) -> None:
        if self.model_repository and self.platform == "local":
            raise ValueError("modelRepository is for Kubernetes: on stack local Triton reads the storage")
        if self.model_repository and self.auto_rollback:
            raise ValueError("autoRollback needs the model repository in the storage: leave modelRepository empty")
        if bool(self.s3_access_key_id) != bool(self.s3_secret_access_key.get_secret_value()):
            raise ValueError("s3AccessKeyId and s3SecretAccessKey go together: set both, or none")

    @property
    def scales(self) -> bool:
        """Kubernetes: whether several pods may serve at a time."""
        return max(self.triton_replicas, self.triton_max_replicas) > 1

    @property
    def serving_cpus(self) -> int:
        """Kubernetes: the CPU limit of a Triton pod."""
        return self.triton_cpus or KUBERNETES_CPUS

    def storage_path(self, stack: str) -> Path:
        """Stack local: the absolute path of the storage directory."""
        return _absolute(Path(self.storage_dir) if self.storage_dir else Path("storage", stack))

    def dataset_path(self) -> Path | None:
        """The absolute path of datasetDir; relative ones count from the project's root."""
        return _absolute(Path(self.dataset_dir)) if self.dataset_dir else None


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
    values[CONTEXT] = config.get(CONTEXT, "")
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problems = [_explain(problem, values) for problem in error.errors(include_url=False)]
        raise ConfigurationError("; ".join(problems)) from None


def _absolute(path: Path) -> Path:
    """Relative ones count from the project's root. A circle of links is left for the file system to refuse."""
    return Path(os.path.realpath(ROOT / path.expanduser()))


def _explain(problem: Mapping[str, Any], values: Mapping[str, str]) -> str:
    message = KINDS.get(problem["type"], str(problem["msg"]).removeprefix("Value error, "))
    message = message.replace("Input should be", "must be")
    if not problem["loc"]:
        return message
    key, *index = problem["loc"]
    name = CONTEXT if key == CONTEXT else f"{NAMESPACE}:{key}"
    if problem["type"] == "extra_forbidden":
        return f"{_shortened(name) if name.isprintable() else _shown(name)} is not a setting; {_hint(key)}"
    if problem["type"] == "missing":
        return f"{name} is not set: set it, or restore its default in Pulumi.yaml"
    if key in SECRETS or (key == to_camel("dataset_url") and "@" in values[key]):
        return f"{name}: {message}"  # its value is nobody's business
    wrong = f"has {_shown(problem['input'])}" if index else f"is {_shown(values[key])}"
    return f"{name} {wrong}: {message[0].lower()}{message[1:]}"


def _hint(key: str) -> str:
    """What may have been meant by a key that is none."""
    if "context" in key.lower():
        return f"the cluster is chosen by {CONTEXT}"
    ours = [to_camel(name) for name in Settings.model_fields if name != "kube_context"]
    near = difflib.get_close_matches(key[:LONGEST_SHOWN], ours, n=1)
    return f"did you mean {NAMESPACE}:{near[0]}?" if near else "Pulumi.yaml lists the settings"


def _shown(value: object) -> str:
    return _shortened(repr(value))


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}… ({len(text):,} characters)"
