"""An ONNX Runtime backend in Python, for a Triton that carries the Python backend only.

Triton finds it as backends/onnxruntime/model.py, so a model with `platform: "onnxruntime_onnx"` is served by it
unchanged. https://github.com/triton-inference-server/backend/blob/main/docs/python_based_backends.md

Tensors cross by DLPack, without a copy. Triton's own conversion from NumPy arrays was compiled for NumPy 1: it gives
empty outputs with NumPy 2.
"""

import json
import os
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

MODEL_FILE = "model.onnx"


class TritonPythonModel:
    """One instance of one model version; Triton runs each in a process of its own."""

    def initialize(self, args: dict[str, str]) -> None:
        config: dict[str, Any] = json.loads(args["model_config"])
        filename = config.get("default_model_filename") or MODEL_FILE
        path = os.path.join(args["model_repository"], args["model_version"], filename)
        self.input, self.output = config["input"][0]["name"], config["output"][0]["name"]
        self.session = onnxruntime.InferenceSession(path, _options(config), providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run all requests that Triton's dynamic batcher brought together as one batch; one response each, in order."""
        batches = [np.from_dlpack(pb_utils.get_input_tensor_by_name(request, self.input)) for request in requests]
        joined = batches[0] if len(batches) == 1 else np.concatenate(batches)
        try:
            logits = self.session.run([self.output], {self.input: joined})[0]
        except Exception as error:
            failure = pb_utils.TritonError(f"ONNX Runtime: {error}")
            return [pb_utils.InferenceResponse(error=failure) for _ in requests]
        ends = np.cumsum([len(batch) for batch in batches])
        parts = np.split(logits, ends[:-1])
        return [pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack(self.output, part)]) for part in parts]

    def finalize(self) -> None:
        del self.session


def _options(config: dict[str, Any]) -> onnxruntime.SessionOptions:
    """Thread counts under the parameter names of Triton's own ONNX Runtime backend."""
    parameters = config.get("parameters", {})
    options = onnxruntime.SessionOptions()
    for name, attribute in (
        ("intra_op_thread_count", "intra_op_num_threads"),
        ("inter_op_thread_count", "inter_op_num_threads"),
    ):
        if name in parameters:
            setattr(options, attribute, int(parameters[name]["string_value"]))
    # Spinning threads of one instance would take the core another instance computes on.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
