"""The exported model in 8-bit integers: quantised, measured, and refused where it does not pay."""

import contextlib
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from mnist.onnx_model import INPUT, OnnxInfo, check, describe, session
from mnist.storage import write_atomic

Pixels = npt.NDArray[np.float32]  # [N, 1, 28, 28] in [0, 1]

CALIBRATION_IMAGES, CALIBRATION_BATCH = 512, 64
BATCHES = (1, 16)  # the smallest and the largest that Triton runs
ROUNDS, SECONDS = 7, 0.1  # of measuring, for each model and batch


@dataclass(frozen=True)
class Speed:
    """Median milliseconds a run on one thread, by batch size; both models measured in turn."""

    fp32: dict[int, float]
    int8: dict[int, float]

    @property
    def is_faster(self) -> bool:
        return all(self.int8[batch] < self.fp32[batch] for batch in BATCHES)

    def rows(self) -> Iterator[tuple[str, int, float]]:
        """(model, batch, milliseconds)"""
        for batch in BATCHES:
            yield "fp32", batch, self.fp32[batch]
            yield "int8", batch, self.int8[batch]

    def __str__(self) -> str:
        figures = (f"{self.int8[batch]:.2f} instead of {self.fp32[batch]:.2f} ms at batch {batch}" for batch in BATCHES)
        return ", ".join(figures)


class _Images(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is not typed
    """Training images, in batches; what the ranges of the activations are taken from."""

    def __init__(self, pixels: Pixels) -> None:
        self._batches: Iterator[Pixels] = iter(
            np.split(pixels, range(CALIBRATION_BATCH, len(pixels), CALIBRATION_BATCH))
        )

    def get_next(self) -> dict[str, Pixels] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def quantise(fp32: Path, int8: Path, pixels: Pixels) -> OnnxInfo:
    """Static quantisation: unsigned activations, signed weights, one scale a channel.

    Signed activations and dynamic quantisation run several times slower than float on x86-64.
    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html

    Args:
        fp32: The exported model.
        int8: Where to write the quantised one.
        pixels: Training images, float32 [N, 1, 28, 28] in [0, 1]; the first 512 set the ranges.

    Raises:
        ModelError: the quantised graph is not one that Triton reads.
        StorageError: `int8` cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=fp32.parent) as directory, _quiet():
        prepared, raw = Path(directory) / "prepared.onnx", Path(directory) / "raw.onnx"
        quant_pre_process(str(fp32), str(prepared))
        quantize_static(
            str(prepared),
            str(raw),
            _Images(pixels[:CALIBRATION_IMAGES]),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        graph = onnx.load(raw)
    check(graph)
    content = graph.SerializeToString()
    write_atomic(int8, content)
    return describe(graph, content)


def compare_speed(fp32: Path, int8: Path) -> Speed:
    """Run both models in turn, so that what else the machine does meets both; 3 s in all.

    Raises:
        ModelError: one of them cannot be loaded.
    """
    sessions = {"fp32": session(fp32, 1), "int8": session(int8, 1)}
    found: dict[str, dict[int, float]] = {"fp32": {}, "int8": {}}
    for batch in BATCHES:
        pixels = np.zeros((batch, 1, 28, 28), np.float32)
        rounds: dict[str, list[float]] = {"fp32": [], "int8": []}
        for _ in range(ROUNDS):
            for name, runtime in sessions.items():
                rounds[name].append(_milliseconds(runtime, pixels))
        for name, figures in rounds.items():
            found[name][batch] = statistics.median(figures)
    return Speed(found["fp32"], found["int8"])


def _milliseconds(runtime: onnxruntime.InferenceSession, pixels: Pixels) -> float:
    runs, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < SECONDS:
        runtime.run(None, {INPUT: pixels})
        runs += 1
    return elapsed / runs * 1e3


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser logs advice that is followed already."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
