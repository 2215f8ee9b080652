"""A real browser for the tests: headless Chromium, told what to do through its DevTools protocol (over pipes).

The protocol: https://chromedevtools.github.io/devtools-protocol/tot
"""

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
# No sandbox: it wants rights that containers do not have. Nothing but this project's own pages is opened.
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe")
ANSWER_SECONDS = 60.0

Scheme = Literal["light", "dark"]


@dataclass
class Page:
    """A tab.

    Attributes:
        problems: What its console said of errors and warnings, and what went wrong while loading.
        requests: The addresses it asked for.
    """

    browser: "Browser"
    session: str
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, address: str) -> None:
        """Load the address to its end."""
        self.call("Page.navigate", url=address)
        self.browser.wait_for("Page.loadEventFired")

    def show(self, scheme: Scheme, width: int, height: int = 900) -> None:
        """The colour scheme that the user's system asks for, and the window's size."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Emulation.setScrollbarsHidden", hidden=True)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited where it is a promise."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, f"{expression} failed: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Of the whole page, as PNG."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **parameters)


class Browser:
    """Sends commands and collects what is told meanwhile."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process, self._number, self._rest = process, 0, b""
        self._told: list[str] = []
        self._pages: dict[str, Page] = {}

    def page(self) -> Page:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Network", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        return page

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        command |= {"sessionId": session} if session else {}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\0")
        self._process.stdin.flush()
        while (message := self._next()).get("id") != self._number:
            self._take(message)
        assert "error" not in message, f"Chromium refuses {method}: {message['error']}"
        result: dict[str, Any] = message["result"]
        return result

    def wait_for(self, event: str) -> None:
        """Until the event was told, which it may have been since the last call."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while event not in self._told:
            assert time.monotonic() < deadline, f"Chromium did not tell {event} in {ANSWER_SECONDS:.0f} s"
            self._take(self._next())
        self._told.clear()

    def _next(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while b"\0" not in self._rest:
            part = self._process.stdout.read1(1 << 20)  # type: ignore[attr-defined]  # a BufferedReader
            assert part, f"Chromium ended with status {self._process.wait()}"
            self._rest += part
        whole, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(whole)
        return message

    def _take(self, message: dict[str, Any]) -> None:
        method, told = message.get("method", ""), message.get("params", {})
        self._told.append(method)
        page = self._pages.get(message.get("sessionId", ""))
        if page is None:
            return
        match method:
            case "Network.requestWillBeSent":
                page.requests.append(told["request"]["url"])
            case "Network.loadingFailed":
                page.problems.append(f"not loaded: {told['errorText']}")
            case "Runtime.exceptionThrown":
                page.problems.append(str(told["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "warning", "assert"):
                page.problems.append(str(told["args"]))
            case "Log.entryAdded" if told["entry"]["level"] in ("error", "warning"):
                page.problems.append(told["entry"]["text"])


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    """Chromium, ended with the test; skips where there is none."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"needs a browser: install one of {', '.join(NAMES)}")
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        # It reads commands from descriptor 3 and answers on 4.
        command = ["sh", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null', "sh", program, *OPTIONS]
        process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}", "--no-first-run"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        browser = Browser(process)
        try:
            yield browser
            browser.call("Browser.close")
            process.wait(20)
        finally:
            process.kill()
            process.communicate()
