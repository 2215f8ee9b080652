"""An ONNX Runtime backend in Python, for a Triton that carries the Python backend only.

Triton finds it as backends/onnxruntime/model.py, so a model with `platform: "onnxruntime_onnx"` is served by it
unchanged. https://github.com/triton-inference-server/backend/blob/main/docs/python_based_backends.md

Tensors cross by DLPack, without a copy. Triton's own conversion from NumPy arrays was compiled for NumPy 1: it gives
empty outputs with NumPy 2.
"""

import ctypes
import json
import os
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import triton_python_backend_utils as pb_utils

MODEL_FILE = "model.onnx"
CONSUMED = b"used_dltensor"  # DLPack's name for a capsule whose tensor was taken over

Array = npt.NDArray[Any]

_rename_capsule = ctypes.pythonapi.PyCapsule_SetName
_rename_capsule.argtypes = [ctypes.py_object, ctypes.c_char_p]


class TritonPythonModel:
    """One instance of one model version; Triton runs each in a process of its own."""

    def initialize(self, args: dict[str, str]) -> None:
        config: dict[str, Any] = json.loads(args["model_config"])
        filename = config.get("default_model_filename") or MODEL_FILE
        path = os.path.join(args["model_repository"], args["model_version"], filename)
        self.input, self.output = config["input"][0]["name"], config["output"][0]["name"]
        self.shape = tuple(int(size) for size in config["input"][0]["dims"])  # of one image
        self.session = onnxruntime.InferenceSession(path, _options(config), providers=["CPUExecutionProvider"])
        _check_interface(path, self.session, config)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run all requests that Triton's dynamic batcher brought together as one batch; one response each, in order.

        A request that cannot be computed gets an error; those beside it get their answers.
        """
        batches = [np.from_dlpack(pb_utils.get_input_tensor_by_name(request, self.input)) for request in requests]
        if all(self._fits(batch) for batch in batches):
            joined = _joined(batches)
            if np.isfinite(joined).all():  # of all at once: for each by itself it would take several times as long
                return self._run(joined, batches)
        faults = [self._fault(batch) for batch in batches]
        good = [batch for batch, fault in zip(batches, faults, strict=True) if fault is None]
        answers = iter(self._run(_joined(good), good) if good else ())
        return [next(answers) if fault is None else _error(fault, pb_utils.TritonError.INVALID_ARG) for fault in faults]

    def _fits(self, batch: Array) -> bool:
        """Triton checks shapes, but counts images in 32 bits: a batch of 2^32 arrives without that dimension."""
        return batch.shape[1:] == self.shape and len(batch) > 0

    def _fault(self, batch: Array) -> str | None:
        """What is wrong with a request."""
        if not self._fits(batch):
            wanted = ", ".join(map(str, self.shape))
            return f"input '{self.input}' has the shape {list(batch.shape)}, expected [B, {wanted}] with B > 0"
        if not np.isfinite(batch).all():
            return f"input '{self.input}' holds NaN or infinity: send finite numbers"
        return None

    def _run(self, joined: Array, batches: list[Array]) -> list[Any]:
        try:
            logits = self.session.run([self.output], {self.input: joined})[0]
        except Exception as error:
            return [_error(f"ONNX Runtime: {error}", pb_utils.TritonError.INTERNAL) for _ in batches]
        responses, start = [], 0
        for batch in batches:
            end = start + len(batch)
            responses.append(pb_utils.InferenceResponse([_tensor(self.output, logits[start:end])]))
            start = end
        return responses

    def finalize(self) -> None:
        del self.session


def _joined(batches: list[Array]) -> Array:
    return batches[0] if len(batches) == 1 else np.concatenate(batches)


def _tensor(name: str, values: Array) -> Any:
    """Hand `values` over without a copy.

    Triton marks the capsule as taken over by a name of its own; NumPy, looking for DLPack's, would print a traceback
    for each response.
    """
    capsule = values.__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack(name, capsule)
    _rename_capsule(capsule, CONSUMED)
    return tensor


def _error(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))


def _check_interface(path: str, session: onnxruntime.InferenceSession, config: dict[str, Any]) -> None:
    """Refuse a model that does not take, or give, what config.pbtxt says."""
    for found, wanted in ((session.get_inputs(), config["input"]), (session.get_outputs(), config["output"])):
        has = [(tensor.name, *tensor.shape[1:]) for tensor in found]
        needs = [(tensor["name"], *map(int, tensor["dims"])) for tensor in wanted]
        if has != needs:
            raise pb_utils.TritonModelException(f"{path} has {has}, config.pbtxt says {needs}: export the model again")


def _options(config: dict[str, Any]) -> onnxruntime.SessionOptions:
    """Thread counts under the parameter names of Triton's own ONNX Runtime backend; `session.*` as ONNX Runtime's own.

    https://onnxruntime.ai/docs/api/c/ lists them in onnxruntime_session_options_config_keys.h.
    """
    parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
    options = onnxruntime.SessionOptions()
    for name, attribute in (
        ("intra_op_thread_count", "intra_op_num_threads"),
        ("inter_op_thread_count", "inter_op_num_threads"),
    ):
        if name in parameters:
            setattr(options, attribute, int(parameters[name]))
    # Threads that spin while they wait would take the cores other instances compute on.
    entries = {"session.intra_op.allow_spinning": "0", **parameters}
    for name, value in entries.items():
        if name.startswith("session."):
            options.add_session_config_entry(name, value)
    return options
