"""ONNX Runtime as the alternatives use it."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnxruntime

Array = npt.NDArray[np.float32]


def load_models(named: str, threads: int) -> dict[str, Callable[[Array], Array]]:
    """`name=path,…` → by name, a function from pixels [B, 1, 28, 28] to logits [B, 10]."""
    return {name: _load(path, threads) for name, path in (one.split("=", 1) for one in named.split(","))}


def _load(path: str, threads: int) -> Callable[[Array], Array]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(pixels: Array) -> Array:
        logits: Array = session.run(["output"], {"input": pixels})[0]
        return logits

    return run
