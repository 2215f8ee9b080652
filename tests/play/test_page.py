"""The real page before a real Triton, drawn on in a real browser."""

import base64
import io
import socket
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from play.answers import PNG, Answers, read
from play.drawing import Drawing, mnist_image

from mnist.data import load
from mnist.inference import Pixels, ServedModel, confidences
from mnist.storage import Storage
from tests.play.conftest import Pad, ServedPage, ServePage, forwarding
from tests.support import free_ports
from tests.workloads.triton import MODEL, Triton

ONE = [(0.5, 0.2 + 0.03 * step) for step in range(21)]
ANSWERED = r"Version \d+ answered in [\d.]+ ms"


@pytest.fixture(scope="module")
def page(serve_page: ServePage, triton: Triton) -> Iterator[ServedPage]:
    with serve_page(triton.endpoint) as served:
        yield served


@pytest.fixture(scope="module")
def lonely_port() -> int:
    """Where no Triton is."""
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def lonely_page(serve_page: ServePage, lonely_port: int) -> Iterator[ServedPage]:
    with serve_page(f"127.0.0.1:{lonely_port}") as served:
        yield served


@pytest.fixture
def pad(page: ServedPage, open_pad: Callable[[str], Pad]) -> Pad:
    return open_pad(page.address)


def test_a_drawn_one_gets_ten_probabilities_from_the_served_version(pad: Pad, triton: Triton) -> None:
    pad.draw(*ONE)
    assert pad.said(ANSWERED).startswith("Version 1 "), "the version that answered is named"
    assert len(pad.probabilities) == 10, "a probability for each digit"
    assert sum(pad.probabilities) == pytest.approx(1, abs=1e-4), "they are probabilities"
    with ServedModel(triton.endpoint, MODEL) as model:
        logits = model.infer(seen(pad))
    assert np.argmax(pad.probabilities) == logits.argmax(), "they are the model's, for the image that is shown"


def test_the_page_needs_no_other_machine_and_no_error_is_on_its_console(pad: Pad) -> None:
    pad.draw(*ONE)
    pad.said(ANSWERED)
    assert pad.hosts == {"127.0.0.1"}, "it works without network: no fonts, scripts or counters from elsewhere"
    assert pad.problems == [], "a page that works has nothing to complain about"


def test_what_is_shown_as_seen_is_the_drawing_centred(pad: Pad) -> None:
    pad.draw((0.1, 0.1), (0.1, 0.3))  # small, and in a corner
    pad.said(ANSWERED)
    image = seen(pad)[0, 0]
    assert image[4:24].max(axis=1).min() > 0.2, "the stroke is 20 pixels high, whatever it was"
    centre = image.sum(axis=0) @ np.arange(28) / image.sum()
    assert abs(centre - 14) <= 0.6, "and in the middle"


def test_clear_forgets_the_drawing(pad: Pad) -> None:
    pad.draw((0.2, 0.2), (0.8, 0.2))
    pad.said(ANSWERED)
    pad.click("#pad button")
    pad.said("Draw a digit, 0 to 9")
    assert sum(pad.probabilities) == 0, "no answer of before is left"
    pad.draw(*ONE)
    pad.said(ANSWERED)
    assert (seen(pad)[0, 0].sum(axis=0) > 0.5).sum() <= 4, "only the second drawing is seen, a vertical line"


def test_without_triton_the_page_says_what_to_do_and_answers_again_when_it_is_back(
    lonely_page: ServedPage, lonely_port: int, open_pad: Callable[[str], Pad], triton: Triton
) -> None:
    pad = open_pad(lonely_page.address)
    pad.draw(*ONE)
    said = pad.said(rf"No answer from 127.0.0.1:{lonely_port}\. Run .*, then draw again")
    assert "make up" in said, "the way out is named"
    assert sum(pad.probabilities) == 0, "no probabilities are made up"
    assert "Traceback" not in pad.text and pad.problems == [], "it is no fault of the page"
    with forwarding(triton.endpoint, lonely_port):
        pad.draw(*ONE)
        pad.said(ANSWERED)


def test_where_a_port_is_taken_the_page_takes_the_next(page: ServedPage, lonely_page: ServedPage) -> None:
    assert page.address != lonely_page.address, "two pages live side by side"


def test_nobody_else_on_the_network_reaches_the_page(page: ServedPage) -> None:
    port = int(page.address.rstrip("/").rpartition(":")[2])
    with socket.socket() as other:
        other.bind(("127.0.0.2", port))  # fails where the page listens on every address


def test_digits_drawn_large_keep_their_prediction(triton: Triton, exported_storage: Storage) -> None:
    """Those that the model is sure of: the tests' model, little trained, changes its mind on others at a breath."""
    images, _ = load(exported_storage.data, "t10k")
    with ServedModel(triton.endpoint, MODEL) as model:
        # scikit-learn's digits are not centred by their mass; MNIST's come out of this as they are.
        as_in_mnist = answers(model, np.concatenate([mnist_image(image) for image in images]))
        as_drawn = answers(model, np.concatenate([mnist_image(enlarged(image)) for image in images]))
    sure = as_in_mnist.max(axis=1) > 0.8
    kept = (as_drawn.argmax(axis=1) == as_in_mnist.argmax(axis=1))[sure]
    assert sure.sum() >= 50, "else this shows nothing"
    assert kept.mean() >= 0.95, f"{kept.mean():.1%} of {sure.sum()} digits are seen as what they are"


def test_the_answer_to_what_is_no_drawing_says_so() -> None:
    with ServedModel(f"127.0.0.1:{free_ports(1)[0]}", MODEL, patience=0) as nobody:
        answers = Answers(nobody, "dev")
        assert "Draw a digit" in answers.to(data_url(np.zeros((9, 9), np.uint8))), "an empty drawing gets the hint"
        assert "Draw a digit" in answers.to(""), "as a cleared one does"
        for sent in ("no picture", "data:image/png;base64,AAAA"):
            assert "This is not a drawing" in answers.to(sent), f"{sent!r} is answered as calmly"
        drawn = np.eye(9, dtype=np.uint8) * 255
        assert "make up STACK=dev" in answers.to(data_url(drawn)), "the stack is named"


def seen(pad: Pad) -> Pixels:
    """The image that the page shows as the model's."""
    source = str(pad.page.evaluate("document.querySelector('#answer img').src"))
    return (read(source) / 255).astype(np.float32).reshape(1, 1, 28, 28)


def data_url(drawing: Drawing) -> str:
    content = io.BytesIO()
    Image.fromarray(drawing).save(content, "PNG")
    return PNG + base64.b64encode(content.getvalue()).decode()


def answers(model: ServedModel, pixels: Pixels) -> npt.NDArray[np.float32]:
    """Probabilities [N, 10]."""
    return confidences(np.concatenate([model.infer(pixels[start : start + 16]) for start in range(0, len(pixels), 16)]))


def enlarged(image: Drawing) -> Drawing:
    """280 x 280, dark on light, as on paper."""
    return 255 - np.asarray(Image.fromarray(image).resize((280, 280), Image.Resampling.BICUBIC))
