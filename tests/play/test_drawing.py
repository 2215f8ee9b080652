"""A drawing becomes an image as MNIST has them, wherever, however large and on whatever ground it is drawn."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from play.drawing import Drawing, EmptyDrawingError, mnist_image

from mnist.data import MNIST_SHA256, read_pair

SIDE = 280
POINTS = st.lists(st.tuples(st.integers(40, 240), st.integers(40, 240)), min_size=2, max_size=8, unique=True)
Points = list[tuple[int, int]]


def drawn(points: Points, scale: float = 1.0) -> Drawing:
    """A thick line through the points, light on dark."""
    image = Image.new("L", (round(SIDE * scale),) * 2)
    places = [(x * scale, y * scale) for x, y in points]
    pen, radius = ImageDraw.Draw(image), 11 * scale
    pen.line(places, fill=255, width=round(2 * radius))
    for x, y in places:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return np.asarray(image)


@given(POINTS)
@settings(deadline=None)
def test_it_is_28_by_28_with_the_longer_side_20_and_values_between_0_and_1(points: Points) -> None:
    pixels = mnist_image(drawn(points))
    assert pixels.shape == (1, 1, 28, 28) and pixels.dtype == np.float32, "what the model takes"
    assert pixels.min() == 0 and pixels.max() == 1, "light strokes on black"
    rows, columns = (np.flatnonzero(pixels[0, 0].any(axis=axis)) for axis in (1, 0))
    assert max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1 == 20, "the longer side"


@given(POINTS)
@settings(deadline=None)
def test_the_centre_of_mass_is_in_the_middle_or_as_near_as_the_strokes_fit(points: Points) -> None:
    image = mnist_image(drawn(points))[0, 0]
    for masses in (image.sum(axis=1), image.sum(axis=0)):
        centre = masses @ np.arange(28) / masses.sum()
        at_the_edge = masses[0] > 0 or masses[-1] > 0
        assert abs(centre - 14) <= 0.501 or at_the_edge, f"the centre is at {centre:.2f}"


@given(POINTS, st.integers(-25, 25), st.integers(-25, 25))
@settings(deadline=None)
def test_where_it_is_drawn_changes_nothing(points: Points, right: int, down: int) -> None:
    here = drawn(points)
    there = np.roll(here, (down, right), (0, 1))
    assert np.array_equal(mnist_image(there), mnist_image(here)), "only the strokes count"


@given(POINTS, st.floats(0.5, 4))
@settings(deadline=None)
def test_how_large_it_is_drawn_changes_little(points: Points, scale: float) -> None:
    image, other = mnist_image(drawn(points))[0, 0], mnist_image(drawn(points, scale))[0, 0]
    # Rounding may move the whole by a pixel; what is drawn stays the same.
    moved = [np.roll(other, (down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    difference = min(np.abs(image - candidate).sum() for candidate in moved) / image.sum()
    assert difference < 0.25, f"{difference:.0%} of the ink is elsewhere"


@given(POINTS, st.integers(0, 255), st.integers(0, 255))
@settings(deadline=None)
def test_the_ground_and_the_ink_do_not_matter(points: Points, ground: int, ink: int) -> None:
    light = drawn(points)
    if abs(ground - ink) < 60:
        return  # hardly to be seen
    grey = np.where(light > 0, ink, ground).astype(np.uint8)
    opaque = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    glass = np.dstack([np.full_like(light, ink)] * 3 + [light])
    wanted = mnist_image(light)
    for name, other in {"grey": grey, "RGB": opaque[..., :3], "RGBA": opaque, "transparent": glass}.items():
        assert np.array_equal(mnist_image(other), wanted), f"{name}: the same strokes"


def test_edges_are_smooth() -> None:
    image = mnist_image(drawn([(60, 60), (220, 220)]))[0, 0]
    assert ((image > 0.1) & (image < 0.9)).sum() > 10, "grey levels come from antialiasing, as MNIST's do"


def test_mnist_s_own_images_come_back_as_they_are(originals: Path) -> None:
    images = read_pair(originals, "t10k")[0]
    if images.sha256 != MNIST_SHA256["t10k-images-idx3-ubyte.gz"]:
        pytest.skip("needs MNIST: set MNIST_DIR")
    large = np.kron(images.values[:500], np.ones((10, 10), np.uint8))
    difference = [
        np.abs(mnist_image(big)[0, 0] - image / 255).mean()
        for big, image in zip(large, images.values[:500], strict=True)
    ]
    assert np.mean(difference) < 0.005, "it is how MNIST was made"
    assert np.median(difference) < 0.0025, "most differ by the faintest grey alone"


@pytest.mark.parametrize(
    "empty",
    [
        np.zeros((280, 280), np.uint8),
        np.full((10, 30, 3), 255, np.uint8),
        np.zeros((280, 280, 4), np.uint8),
        np.dstack([np.random.default_rng(1).integers(0, 255, (9, 9, 3), np.uint8), np.zeros((9, 9), np.uint8)]),
        np.random.default_rng(1).integers(120, 130, (50, 50), np.uint8),
        np.zeros((1, 1), np.uint8),
    ],
    ids=["black", "white", "transparent", "colours that are transparent", "noise", "one pixel"],
)
def test_an_empty_drawing_is_refused_with_a_hint(empty: Drawing) -> None:
    with pytest.raises(EmptyDrawingError, match="Draw a digit"):
        mnist_image(empty)


def test_a_single_dot_is_a_drawing() -> None:
    dot = np.zeros((280, 280), np.uint8)
    dot[140, 17] = 255
    assert mnist_image(dot).sum() == 400, "a dot, 20 pixels wide"


@pytest.mark.parametrize("shape", [(0, 0), (28,), (28, 28, 2), (2, 28, 28, 3)])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"a drawing is uint8 \[H, W\]"):
        mnist_image(np.zeros(shape, np.uint8))


def test_numbers_other_than_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="float64"):
        mnist_image(np.zeros((28, 28)))  # type: ignore[arg-type]  # what is tested
