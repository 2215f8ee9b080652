"""From a drawing to an image as MNIST has them.

What http://yann.lecun.com/exdb/mnist says of MNIST is done to the drawing too: scaled to fit 20 x 20 pixels with its
ratio kept, the grey levels coming from antialiasing, and put into 28 x 28 with its centre of mass in the middle.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from mnist.data import SIDE
from mnist.inference import Pixels

BOX = 20
MIDDLE = 14.0  # row and column of the centre of mass; MNIST's test images have it there within half a pixel
FAINTEST = 0.1  # of the strongest stroke: what is fainter is a trace of compression or of a soft brush
LEAST_CONTRAST = 25  # of 255, between strokes and ground

Drawing = npt.NDArray[np.uint8]  # [H, W] grey, [H, W, 3] RGB or [H, W, 4] RGBA
Strokes = npt.NDArray[np.float32]  # [H, W] in [0, 1], 0 where nothing is drawn


class EmptyDrawingError(Exception):
    """Nothing is drawn; the message says what to do."""

    def __init__(self) -> None:
        super().__init__("Draw a digit, 0 to 9, with the mouse or a finger.")


def mnist_image(drawing: Drawing) -> Pixels:
    """The drawing as the model takes it: float32 [1, 1, 28, 28] in [0, 1], strokes light.

    Args:
        drawing: Of any size, strokes darker or lighter than the ground, or on a transparent one.

    Raises:
        EmptyDrawingError: nothing is drawn.
        ValueError: the array is no picture.
    """
    return centred(scaled(cropped(strokes(drawing)))).reshape(1, 1, SIDE, SIDE)


def strokes(drawing: Drawing) -> Strokes:
    """How much each pixel differs from the ground, which is what most of the border shows."""
    is_picture = drawing.ndim >= 2 and drawing.shape[2:] in ((), (3,), (4,)) and drawing.size > 0
    if drawing.dtype != np.uint8 or not is_picture:
        raise ValueError(f"a drawing is uint8 [H, W], [H, W, 3] or [H, W, 4], this is {drawing.dtype} {drawing.shape}")
    picture = Image.fromarray(drawing).convert("RGBA")
    opacity = np.asarray(picture.getchannel("A"), np.float32)
    light = np.asarray(picture.convert("L"), np.float32) * opacity / np.float32(255)  # unseen where transparent
    difference = np.maximum(*(np.abs(layer - np.float32(np.median(_border(layer)))) for layer in (light, opacity)))
    if difference.max() < LEAST_CONTRAST:
        raise EmptyDrawingError
    shares = difference / difference.max()
    return np.where(shares < FAINTEST, 0, shares).astype(np.float32)


def cropped(image: Strokes) -> Strokes:
    """The part that is drawn on."""
    rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def scaled(image: Strokes) -> Strokes:
    """In a square of 20 x 20, the longer side filling it; a pixel is the mean of what it covers."""
    square = np.zeros([max(image.shape)] * 2, np.float32)
    square[: image.shape[0], : image.shape[1]] = image
    small = np.asarray(Image.fromarray(square).resize((BOX, BOX), Image.Resampling.BOX))
    return cropped(small / small.max())  # a thin pen leaves grey; MNIST's images all have white


def centred(image: Strokes) -> Strokes:
    """In the middle of 28 x 28 by its centre of mass, or as near as it fits."""
    field = np.zeros((SIDE, SIDE), np.float32)
    places = (_start(image.sum(axis=1)), _start(image.sum(axis=0)))
    field[tuple(slice(start, start + size) for start, size in zip(places, image.shape, strict=True))] = image
    return field


def _start(masses: npt.NDArray[np.float32]) -> int:
    centre = float(masses @ np.arange(len(masses)) / masses.sum())
    return min(max(round(MIDDLE - centre), 0), SIDE - len(masses))


def _border(layer: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.concatenate([layer[0], layer[-1], layer[:, 0], layer[:, -1]])
