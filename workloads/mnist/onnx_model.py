"""PyTorch → ONNX: export, check, compare."""

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import nn

from mnist.data import CLASSES, SIDE
from mnist.errors import ModelError
from mnist.storage import write_atomic

# What Triton 23.04's ONNX Runtime 1.14 reads; every newer one does too.
OPSET = 17
MAX_OPSET, MAX_IR_VERSION = 18, 8
INPUT, OUTPUT = "input", "output"
# Logits of fp32 models differ by the order of sums alone; ResNet-18's are of size 10, float32 has 7 digits.
MAX_DIFFERENCE = 1e-3
EVALUATION_BATCH = 250

Logits = npt.NDArray[np.float32]  # [N, 10]


@dataclass(frozen=True)
class OnnxInfo:
    """What is known of an ONNX file."""

    opset: int
    ir_version: int
    nodes: int
    sha256: str
    bytes: int


def export_onnx(model: nn.Module, path: Path) -> OnnxInfo:
    """Export `model` (pixels → logits) with a dynamic batch, check and write it.

    Raises:
        ModelError: the exported graph is not valid ONNX or beyond what Triton's ONNX Runtime reads.
        StorageError: `path` cannot be written.
    """
    model.eval()
    raw = io.BytesIO()  # the exporter's own writing to a file fails with a traceback when the disk is full
    with warnings.catch_warnings(), torch.inference_mode():
        # The new exporter starts at opset 18; 17 is what the oldest supported Triton reads.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model,
            (torch.zeros(2, 1, SIDE, SIDE),),
            raw,  # type: ignore[arg-type]  # the annotation knows paths only
            opset_version=OPSET,
            dynamo=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
        )
    content = raw.getvalue()
    graph = onnx.load_from_string(content)
    check(graph)
    write_atomic(path, content)
    return describe(graph, content)


def describe(graph: onnx.ModelProto, content: bytes) -> OnnxInfo:
    """Of a graph and its serialised bytes."""
    return OnnxInfo(
        opset=graph.opset_import[0].version,
        ir_version=graph.ir_version,
        nodes=len(graph.graph.node),
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
    )


def check(graph: onnx.ModelProto) -> None:
    """Refuse what is not valid ONNX, has another interface, or is too new for Triton.

    Raises:
        ModelError: says which.
    """
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"the exported model is not valid ONNX: {str(error).splitlines()[0]}") from None
    opset = max((entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset > MAX_OPSET or graph.ir_version > MAX_IR_VERSION:
        raise ModelError(
            f"the exported model has opset {opset} and IR version {graph.ir_version}; "
            f"Triton's ONNX Runtime reads up to {MAX_OPSET} and {MAX_IR_VERSION}"
        )
    for values, name, shape in (
        (graph.graph.input, INPUT, (1, SIDE, SIDE)),
        (graph.graph.output, OUTPUT, (CLASSES,)),
    ):
        found = [
            (value.name, *(dimension.dim_value for dimension in value.type.tensor_type.shape.dim[1:]))
            for value in values
        ]
        if found != [(name, *shape)]:
            raise ModelError(f"the exported model has {found}, expected {[(name, *shape)]}: it is not published")


def session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU; 0 threads: as many as there are cores.

    Raises:
        ModelError: the file is missing, damaged, or beyond this ONNX Runtime.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        raise ModelError(f"{path} cannot be loaded by ONNX Runtime: {str(error).splitlines()[0]}") from None


def predict(runtime: onnxruntime.InferenceSession, pixels: npt.NDArray[np.float32]) -> Logits:
    """Pixels in [0, 1], float32 [N, 1, 28, 28] → logits, float32 [N, 10]."""
    starts = range(0, len(pixels), EVALUATION_BATCH)
    outputs = [runtime.run([OUTPUT], {INPUT: pixels[start : start + EVALUATION_BATCH]})[0] for start in starts]
    return np.concatenate([np.asarray(output, dtype=np.float32) for output in outputs])


def compare(ours: Logits, reference: Logits) -> dict[str, float]:
    """Largest absolute difference of logits, and the share of equal predictions."""
    difference = np.abs(ours - reference).max()  # NaN where one of them is NaN, which no limit would catch
    return {
        "max_absolute_difference": float(difference) if np.isfinite(difference) else float("inf"),
        "equal_predictions": float((ours.argmax(1) == reference.argmax(1)).mean()),
    }
