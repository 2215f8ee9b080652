"""What the page shows for a drawing, as HTML: the probabilities, what the model saw, who answered and how fast."""

import base64
import io
import time
from html import escape

import numpy as np
from PIL import Image

from mnist.data import CLASSES, SIDE
from mnist.errors import ServerError
from mnist.inference import Pixels, ServedModel, confidences
from play.drawing import Drawing, EmptyDrawingError, mnist_image

PNG = "data:image/png;base64,"
BLANK: Pixels = np.zeros((1, 1, SIDE, SIDE), np.float32)


class Answers:
    """Asks a model.

    Args:
        model: It is asked once a drawing.
        stack: Whose model it is.
    """

    def __init__(self, model: ServedModel, stack: str = "local") -> None:
        self.model, self.stack = model, stack

    def none(self) -> str:
        """Before anything is drawn."""
        return shown(BLANK, None, str(EmptyDrawingError()))

    def to(self, drawn: str) -> str:
        """The answer to what the pad sends, a PNG as a data URL; whatever goes wrong is said on the page."""
        if not drawn:
            return self.none()
        try:
            pixels = mnist_image(read(drawn))
        except EmptyDrawingError:
            return self.none()
        except (ValueError, OSError):  # not from this page's pad
            return shown(BLANK, None, "This is not a drawing.")
        started = time.perf_counter()
        try:
            answer = self.model.ask(pixels)
        except ServerError as error:
            why = str(error).partition(": ")[2].partition(";")[0]  # gRPC goes on with every address it tried
            what = f"<b>No answer from {escape(self.model.endpoint)}.</b>"
            advice = f"Run <code>{remedy(self.stack)}</code>, then draw again."
            return shown(pixels, None, f"{what} {advice}<small>{escape(why)}</small>")
        milliseconds = (time.perf_counter() - started) * 1e3
        who = f"<b>Version {answer.version}</b> answered in <b>{milliseconds:.1f} ms</b>"
        return shown(pixels, confidences(answer.logits)[0], who)


def remedy(stack: str) -> str:
    """The command after which there is an answer."""
    return "make up" if stack == "local" else f"make up STACK={stack}"


def read(drawn: str) -> Drawing:
    content = base64.b64decode(drawn.removeprefix(PNG), validate=True)
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        return np.asarray(image.convert("L"))


def shown(pixels: Pixels, probabilities: np.ndarray | None, said: str) -> str:
    rows = "".join(row(digit, probabilities) for digit in range(CLASSES))
    image = f'<img src="{picture(pixels)}" alt=""><figcaption>what the model sees</figcaption>'
    return f'{rows}<div class="seen"><figure>{image}</figure><p>{said}</p></div>'


def row(digit: int, probabilities: np.ndarray | None) -> str:
    """One digit's bar; the likeliest stands out."""
    share = 0.0 if probabilities is None else float(probabilities[digit])
    kind = "row best" if probabilities is not None and digit == probabilities.argmax() else "row"
    figure = "" if probabilities is None else f"{share:.1%}"
    track = f'<div class="track"><div class="bar" style="width: {share:.4%}"></div></div>'
    return f'<div class="{kind}" data-share="{share:.6f}"><b>{digit}</b>{track}<span>{figure}</span></div>'


def picture(pixels: Pixels) -> str:
    """The image as a data URL."""
    content = io.BytesIO()
    Image.fromarray(np.round(pixels.reshape(SIDE, SIDE) * 255).astype(np.uint8)).save(content, "PNG")
    return PNG + base64.b64encode(content.getvalue()).decode()
