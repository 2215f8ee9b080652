"""Model repositories for Triton: ours as the export stage writes it, and others."""

import hashlib
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import ROOT
from bench.prepared import WORK
from mnist.cpus import available_cpus
from mnist.repository import CONFIG_FILE, MODEL_FILE, Metadata, ModelRepository, ServingConfig, render_config
from mnist.storage import Storage

MODEL = "resnet18_mnist"
NOOP = ROOT / "bench" / "serving" / "noop_model.py"

# Threads that wait for work keep looking for it: ONNX Runtime's default, which this project's backend turns off.
SPINNING = 'parameters { key: "session.intra_op.allow_spinning" value: { string_value: "1" } }\n'

# As usually written down by hand: some instances, ONNX Runtime's default threads, preferred batch sizes.
REFERENCE = f"""\
name: "{MODEL}"
platform: "onnxruntime_onnx"
max_batch_size: 16
input [ {{ name: "input" data_type: TYPE_FP32 dims: [ 1, 28, 28 ] }} ]
output [ {{ name: "output" data_type: TYPE_FP32 dims: [ 10 ] }} ]
instance_group [ {{ count: 2 kind: KIND_CPU }} ]
dynamic_batching {{ preferred_batch_size: [ 2, 4, 8 ] max_queue_delay_microseconds: 100 }}
{SPINNING}"""


@dataclass(frozen=True)
class Variant:
    """One way to configure Triton for the model, to compare with the shipped one."""

    instances: int
    threads: int
    delay_us: int
    preferred: tuple[int, ...] = ()
    spins: bool = False  # threads, while they wait for work

    def __str__(self) -> str:
        preferred = f", preferred {'/'.join(map(str, self.preferred))}" if self.preferred else ""
        return f"{self.instances} × {self.threads}, {self.delay_us} µs{preferred}{', spinning' if self.spins else ''}"

    def config(self) -> str:
        text = render_config(MODEL, None, shipped())
        ours = shipped()
        changes = {
            f"count: {ours.instances} ": f"count: {self.instances} ",
            f'"intra_op_thread_count" value: {{ string_value: "{ours.threads}"': (
                f'"intra_op_thread_count" value: {{ string_value: "{self.threads}"'
            ),
            f"max_queue_delay_microseconds: {ours.queue_delay_us} ": (
                f"max_queue_delay_microseconds: {self.delay_us} "
                + (f"preferred_batch_size: {list(self.preferred)} " if self.preferred else "")
            ),
        }
        for before, after in changes.items():
            assert text.count(before) == 1, f"config.pbtxt has no {before!r} any more"
            text = text.replace(before, after)
        return text + SPINNING if self.spins else text


def shipped() -> ServingConfig:
    """What the export stage configures with default settings."""
    return ServingConfig(cpus=available_cpus())


def with_onnx(name: str, model: Path, config: str | None = None) -> Storage:
    """A storage with one published version of `model`; the shipped config.pbtxt unless one is given."""
    return _published(name, {MODEL_FILE: model}, config)


def with_noop(name: str, model: Path) -> Storage:
    """The shipped configuration with a model that computes nothing. (The launcher wants a model.onnx to be there.)"""
    text = render_config(MODEL, None, shipped()).replace('platform: "onnxruntime_onnx"', 'backend: "python"')
    return _published(name, {MODEL_FILE: model, "model.py": NOOP}, text)


def _published(name: str, files: dict[str, Path], config: str | None) -> Storage:
    storage = Storage(WORK / "serving" / re.sub(r"[^a-zA-Z0-9.-]+", "-", name))
    shutil.rmtree(storage.root, ignore_errors=True)
    repository = ModelRepository(storage.models, MODEL)
    staging = repository.staging()
    for target, source in files.items():
        os.link(source, staging / target) if target == MODEL_FILE else shutil.copyfile(source, staging / target)
    repository.publish(staging, _metadata(files[MODEL_FILE]))
    repository.serve(None, shipped())
    if config is not None:
        (repository.directory / CONFIG_FILE).write_text(config, encoding="utf-8")
    return storage


def _metadata(model: Path) -> Metadata:
    content = model.read_bytes()
    return Metadata(
        export_date="",
        accuracy=1.0,
        source_model="",
        dataset="mnist",
        test_digest="",
        test_images=10_000,
        precision="",
        opset=17,
        ir_version=8,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        parity={},
        versions={},
    )


def as_dict(variant: Variant) -> dict[str, object]:
    return asdict(variant)
