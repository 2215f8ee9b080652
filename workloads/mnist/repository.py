"""Triton's model repository: versions that appear whole, which one is served, and config.pbtxt."""

import contextlib
import json
import re
import shutil
import tempfile
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mnist.data import CLASSES, SIDE
from mnist.errors import ModelError
from mnist.records import record
from mnist.storage import explained, make_directory, publish_directory, write_atomic

MAX_BATCH_SIZE = 16
MODEL_FILE = "model.onnx"
METADATA_FILE = "metadata.json"
PREDICTIONS_FILE = "predictions.npy"  # PyTorch's predictions for the test data, uint8 [N]: what serving must repeat
CONFIG_FILE = "config.pbtxt"
REJECTED_FILE = "rolled-back.json"  # versions that were gone back from; none of them is "the newest"
RESTART_FILE = ".restart"  # its change asks the running server to start again, on what config.pbtxt then says

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}"  # it names a directory, and goes into config.pbtxt
NAME_MEANING = "letters, digits, _ and -, 63 at most, a letter or digit first"

# https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md
_CONFIG = """\
name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: {max_batch_size}
input [ {{ name: "input" data_type: TYPE_FP32 dims: [ 1, {side}, {side} ] }} ]
output [ {{ name: "output" data_type: TYPE_FP32 dims: [ {classes} ] }} ]
version_policy: {policy}
instance_group [ {{ count: {instances} kind: {kind} }} ]
dynamic_batching {{ max_queue_delay_microseconds: {queue_delay_us} }}
optimization {{
  input_pinned_memory {{ enable: {pinned_memory} }}
  output_pinned_memory {{ enable: {pinned_memory} }}
}}
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "{threads}" }} }}
parameters {{ key: "inter_op_thread_count" value: {{ string_value: "1" }} }}
model_warmup [
{warmups}
]
"""
_WARMUP = (
    '  {{ name: "batch of {size}" batch_size: {size} '
    'inputs {{ key: "input" value: {{ data_type: TYPE_FP32 dims: [ 1, {side}, {side} ] zero_data: true }} }} }}'
)


@dataclass(frozen=True, kw_only=True)
class ServingConfig:
    """How Triton runs the model on the CPUs it is given; docs/performance.md shows it beside other ways.

    No batch sizes are preferred: a batch of such a size would leave at once, though more requests are there.

    Attributes:
        cpus: At least 1.
        gpu: Serve on the GPU instead; one instance then, as each has a copy of the model and the GPU works for all.
        queue_delay_us: Microseconds a request waits for others to form a batch, also where none come. Those that come
            while all instances are busy form batches without it.
        pinned_memory: For tensors on their way to and from a device; harmless on a CPU.
    """

    cpus: int
    gpu: bool = False
    queue_delay_us: int = 0
    pinned_memory: bool = True

    @property
    def instances(self) -> int:
        """One a CPU: instances x intra-op threads = CPUs keeps every core busy and none oversubscribed."""
        return 1 if self.gpu else self.cpus

    @property
    def threads(self) -> int:
        return 1


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """metadata.json of one published version."""

    export_date: str  # ISO 8601, UTC
    accuracy: float  # of model.onnx with ONNX Runtime on the whole test data, 0..1
    source_model: str  # the checkpoint, relative to the storage
    dataset: str
    test_digest: str  # accuracies are comparable only where this is equal
    test_images: int
    precision: str
    opset: int
    ir_version: int
    sha256: str  # of model.onnx
    bytes: int
    parity: dict[str, float]  # with PyTorch: max_absolute_difference of logits, equal_predictions (share)
    versions: dict[str, str]  # torch, onnx, onnxruntime, mnist-triton
    speed: dict[str, float] = field(default_factory=dict)  # of int8 and fp32 on one thread where it was exported, ms


class ModelRepository:
    """One model's directory below storage/models.

    Raises:
        ModelError: the name cannot be that of a directory and of a model. What writes raises a `StorageError`.
    """

    def __init__(self, models: Path, name: str) -> None:
        if not re.fullmatch(NAME_PATTERN, name):
            raise ModelError(f"the model name is {name!r}: it must be {NAME_MEANING}")
        self.name = name
        self.directory = models / name
        self.config_path = self.directory / CONFIG_FILE

    def versions(self) -> list[int]:
        """Published versions, oldest first."""
        if not self.directory.is_dir():
            return []
        return sorted(int(path.name) for path in self.directory.iterdir() if re.fullmatch(r"[1-9]\d*", path.name))

    def version_directory(self, version: int) -> Path:
        return self.directory / str(version)

    def served(self) -> int | None:
        """The version Triton serves when it starts now: the one config.pbtxt names, else the newest."""
        versions = self.versions()
        with explained(self.config_path, "read"):
            exists = self.config_path.exists()
            config = self.config_path.read_text(encoding="utf-8", errors="replace") if exists else ""
        named = re.search(r"specific \{ versions: \[ (\d+) \] \}", config)
        if named and int(named[1]) in versions:
            return int(named[1])
        return versions[-1] if versions else None

    def metadata(self, version: int) -> Metadata:
        """Of a published version.

        Raises:
            ModelError: metadata.json is missing or damaged.
        """
        path = self.version_directory(version) / METADATA_FILE
        try:
            metadata = record(Metadata, json.loads(path.read_text(encoding="utf-8")))
            if not 0 <= metadata.accuracy <= 1:
                raise ValueError("no accuracy")
            return metadata
        except (OSError, ValueError, TypeError, RecursionError):
            raise ModelError(f"{path} is missing or damaged: remove version {version} or restore the file") from None

    def predictions(self, version: int) -> npt.NDArray[np.uint8]:
        """PyTorch's predictions for the test data, uint8 [N] in 0..9.

        Raises:
            ModelError: the file is missing or damaged; pickled code in it is never run.
        """
        path = self.version_directory(version) / PREDICTIONS_FILE
        try:
            with path.open("rb") as file:
                predictions = np.lib.format.read_array(file, allow_pickle=False)
            if predictions.dtype != np.uint8 or predictions.ndim != 1 or (predictions >= CLASSES).any():
                raise ValueError("no predictions")
            return predictions
        except Exception:  # damaged bytes make NumPy raise almost anything
            raise ModelError(f"{path} is missing or damaged: remove version {version} or restore the file") from None

    def staging(self) -> Path:
        """A directory to write the next version in; on the same file system, so that publishing is a rename."""
        make_directory(self.directory)
        with explained(self.directory):
            for left_over in self.directory.glob(".staging-*"):  # of an export that was killed
                shutil.rmtree(left_over, ignore_errors=True)
            staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=self.directory))
            staging.chmod(0o755)
        return staging

    def publish(self, staging: Path, metadata: Metadata) -> int:
        """Make the finished staging directory the next version; returns its number."""
        write_atomic(staging / METADATA_FILE, json.dumps(asdict(metadata), indent=2) + "\n")
        version = max(self.versions(), default=0) + 1
        publish_directory(staging, self.version_directory(version))
        return version

    def serve(self, version: int | None, serving: ServingConfig) -> None:
        """Write config.pbtxt so that Triton serves `version`; when None, the newest that was not rolled back."""
        good = [other for other in self.versions() if other not in self.rejected()]
        if version is None and good and good[-1] != self.versions()[-1]:
            version = good[-1]
        write_atomic(self.config_path, render_config(self.name, version, serving))

    def rejected(self) -> list[int]:
        """Versions that failed their check and were rolled back."""
        try:
            content = json.loads((self.directory / REJECTED_FILE).read_text(encoding="utf-8"))
            return [int(version) for version in content]
        except (OSError, ValueError, TypeError):
            return []

    def roll_back(self, failed: int, version: int) -> None:
        """Serve `version` from now on instead of the failed one, and ask the running server for it.

        Raises:
            ModelError: config.pbtxt is not one of this project's.
        """
        pinned = self.config_for(version)
        write_atomic(self.directory / REJECTED_FILE, json.dumps(sorted({*self.rejected(), failed})))
        write_atomic(self.config_path, pinned)
        write_atomic(self.directory / RESTART_FILE, uuid.uuid4().hex)

    def config_for(self, version: int) -> str:
        """config.pbtxt as it is, but for its naming the version to serve.

        Raises:
            ModelError: config.pbtxt is not one of this project's.
        """
        with explained(self.config_path, "read"):
            config = self.config_path.read_text(encoding="utf-8", errors="replace")
        pinned, count = re.subn(r"version_policy: \{.*\}", f"version_policy: {_policy(version)}", config)
        if count != 1:
            raise ModelError(f"{self.config_path} is damaged: run the export stage again")
        return pinned

    def restart_token(self) -> str:
        """Differs from before when the server is to start again."""
        with contextlib.suppress(OSError):
            return (self.directory / RESTART_FILE).read_text(encoding="ascii", errors="replace")
        return ""

    def prune(self, keep: int) -> list[int]:
        """Remove the oldest versions beyond `keep`, never the served one; returns what was removed."""
        versions, served = self.versions(), self.served()
        surplus = [version for version in versions if version != served][: max(0, len(versions) - keep)]
        for version in surplus:
            with explained(self.version_directory(version), "remove"):
                shutil.rmtree(self.version_directory(version))
        return surplus


def render_config(name: str, version: int | None, serving: ServingConfig) -> str:
    """config.pbtxt, in protobuf's text format."""
    return _CONFIG.format(
        name=name,
        max_batch_size=MAX_BATCH_SIZE,
        side=SIDE,
        classes=CLASSES,
        policy=_policy(version),
        instances=serving.instances,
        kind="KIND_GPU" if serving.gpu else "KIND_CPU",
        queue_delay_us=serving.queue_delay_us,
        pinned_memory=str(serving.pinned_memory).lower(),
        threads=serving.threads,
        warmups=",\n".join(_WARMUP.format(size=size, side=SIDE) for size in (1, MAX_BATCH_SIZE)),
    )


def _policy(version: int | None) -> str:
    return "{ latest { num_versions: 1 } }" if version is None else f"{{ specific {{ versions: [ {version} ] }} }}"
