"""Test images as pictures inside the page: dark strokes on nothing, so that a dark page can invert them."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.image as mpl_image
import numpy as np
import numpy.typing as npt

from mnist.data import Images, Labels

WORST = 24  # of the mistakes, most confident first


@dataclass(frozen=True)
class Digit:
    """One test image and what the model made of it."""

    index: int  # in the test data
    label: int
    prediction: int
    confidence: float  # of the prediction, 0..1
    source: str  # data: URL of a PNG


def belong(images: Images, labels: Labels, results: Mapping[str, Any], told: Sequence[Mapping[str, Any]]) -> bool:
    """Whether these are the test data of the run: as many, and with the labels that its results tell."""
    inside = all(0 <= entry["index"] < len(labels) for entry in told)
    return len(images) == results["test_images"] and inside and all(labels[e["index"]] == e["label"] for e in told)


def worst(mistakes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The mistakes that the model was surest of, the surest first."""
    return sorted(mistakes, key=lambda entry: (-entry["confidence"], entry["index"]))[:WORST]


def digits(entries: Sequence[Mapping[str, Any]], images: Images) -> list[Digit]:
    """The pictures of what `samples` in results.json or mistakes.json list."""
    names = ("index", "label", "prediction", "confidence")
    return [
        Digit(source=_picture(images[entry["index"]]), **{name: entry[name] for name in names}) for entry in entries
    ]


def _picture(image: npt.NDArray[np.uint8]) -> str:
    strokes = np.zeros((*image.shape, 4), np.uint8)
    strokes[..., 3] = image
    buffer = io.BytesIO()
    mpl_image.imsave(buffer, strokes, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
