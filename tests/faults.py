"""Faults that tests make on purpose."""

import hashlib
import json
from pathlib import Path

import onnx
import onnx.numpy_helper


def ruin(version: Path) -> None:
    """Make a published version one that answers wrongly, though its sum and its metadata look right.

    The weights of the last layer change their sign: what was the likeliest digit becomes the least likely.
    """
    path = version / "model.onnx"
    graph = onnx.load(path)
    [last] = [tensor for tensor in graph.graph.initializer if len(tensor.dims) == 2]
    last.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(last), last.name))
    onnx.save(graph, path)
    metadata = json.loads((version / "metadata.json").read_text(encoding="utf-8"))
    metadata["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (version / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
