"""A served model, the real page before it, and a browser to draw with."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from mnist.storage import Storage
from tests.browser import Page, running_browser
from tests.support import ROOT, gone
from tests.workloads.triton import MODEL, Triton, running_triton

PAGE_PYTHON = ROOT / ".venv-play" / "bin" / "python"
FAKE_KUBECTL = Path(__file__).with_name("fake_kubectl.py")
START_SECONDS = 120.0  # importing gradio takes seconds, more where two tests share two CPUs
Point = tuple[float, float]  # from the pad's left and top, as shares of its sides

ServePage = Callable[[str], contextlib.AbstractContextManager["ServedPage"]]


@pytest.fixture(scope="session")
def triton(exported_storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with running_triton(exported_storage.root, tmp_path_factory.mktemp("triton") / "launcher.log") as running:
        yield running


@dataclass(frozen=True)
class ServedPage:
    process: "subprocess.Popen[str]"
    address: str


@pytest.fixture(scope="session")
def page_python() -> Path:
    if not PAGE_PYTHON.exists():
        pytest.skip("needs gradio: run `make setup-play`")
    return PAGE_PYTHON


@pytest.fixture(scope="session")
def serve_page(page_python: Path) -> ServePage:
    """Starts the page for an endpoint."""

    def serve(endpoint: str) -> contextlib.AbstractContextManager[ServedPage]:
        return running_page([page_python, "-m", "play.page", f"--endpoint={endpoint}", f"--model={MODEL}"])

    return serve


@contextlib.contextmanager
def running_page(command: Sequence[str | Path], **keywords: Any) -> Iterator[ServedPage]:
    """The page, ended as with Ctrl-C; it must leave nothing behind."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **keywords,
    )
    try:
        yield ServedPage(process, _address(process))
    finally:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(signal.SIGINT)
        left = gone(family, patience=30)
        for number in left:
            psutil.Process(number).kill()
        said, _ = process.communicate()
    assert left == [], "the page and what it started end with Ctrl-C"
    assert (process.returncode, said) == (0, ""), "it ends without a word"


@contextlib.contextmanager
def forwarding(target: str, port: int) -> Iterator[None]:
    """Connections to the port go to the target."""
    command = [sys.executable, str(FAKE_KUBECTL), f"{port}:8001"]
    with subprocess.Popen(command, env={**os.environ, "FAKE_TARGET": target}, stdout=subprocess.DEVNULL) as relay:
        try:
            yield
        finally:
            relay.terminate()


def _address(process: "subprocess.Popen[str]") -> str:
    """What the page says that it is at."""
    assert process.stdout is not None
    said, started = "", time.monotonic()
    for line in process.stdout:
        said += line
        if found := re.search(r"draw at (http://\S+) ", line):
            return found[1]
    raise AssertionError(f"the page ended with {process.wait()} after {time.monotonic() - started:.0f} s: {said}")


@dataclass(frozen=True)
class Pad:
    """The page in a browser: draws on it and reads what it shows."""

    page: Page

    def draw(self, *points: Point) -> None:
        """A stroke through these points, with the mouse."""
        left, top, width, height = self._box("#pad canvas.ready")
        places = [(left + x * width, top + y * height) for x, y in points]
        self._mouse("mousePressed", places[0], 1)
        for place in places[1:]:
            self._mouse("mouseMoved", place, 1)
        self._mouse("mouseReleased", places[-1], 0)

    def click(self, selector: str) -> None:
        left, top, width, height = self._box(selector)
        for kind, buttons in (("mousePressed", 1), ("mouseReleased", 0)):
            self._mouse(kind, (left + width / 2, top + height / 2), buttons)

    def said(self, pattern: str, seconds: float = 30.0) -> str:
        """Wait until the page says this; the text that matches."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text)):
            assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {pattern!r}: {self.text!r}"
            time.sleep(0.1)
        return found[0]

    @property
    def text(self) -> str:
        return str(self.page.evaluate("document.body.innerText"))

    @property
    def probabilities(self) -> list[float]:
        shares = self.page.evaluate("[...document.querySelectorAll('#answer .row')].map(row => row.dataset.share)")
        return [float(share) for share in shares]

    @property
    def problems(self) -> list[str]:
        """The console's, without the stream of answers that the page itself ends after the last one."""
        return [problem for problem in self.page.problems if "net::ERR_ABORTED" not in problem]

    @property
    def hosts(self) -> set[str | None]:
        """Whom the page asked for anything; what it carries itself has no host."""
        return {urlsplit(url).hostname for url in self.page.requests if not url.startswith(("data:", "blob:"))}

    def _box(self, selector: str) -> list[float]:
        element = f"document.querySelector({json.dumps(selector)})"
        deadline = time.monotonic() + START_SECONDS
        while not self.page.evaluate(f"{element} !== null"):
            assert time.monotonic() < deadline, f"the page has no {selector}: {self.text!r}"
            time.sleep(0.1)
        box: list[float] = self.page.evaluate(
            f"(({{x, y, width, height}}) => [x, y, width, height])({element}.getBoundingClientRect())"
        )
        return box

    def _mouse(self, kind: str, place: Point, buttons: int) -> None:
        where = {"x": place[0], "y": place[1], "button": "left", "buttons": buttons, "clickCount": 1}
        self.page.call("Input.dispatchMouseEvent", type=kind, **where)


@pytest.fixture(scope="module")
def open_pad() -> Iterator[Callable[[str], Pad]]:
    """Opens an address in a tab of its own, 1200 x 900."""
    with running_browser() as browser:

        def opened(address: str) -> Pad:
            page = browser.page()
            page.show("light", 1200)
            page.open(address)
            return Pad(page)

        yield opened
