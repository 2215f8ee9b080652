"""Requests to a served model, one after the other, while something is done to it."""

import threading
import time

import numpy as np

from mnist.errors import ServerError
from mnist.inference import Logits, Pixels, ServedModel

BLANK: Pixels = np.zeros((1, 1, 28, 28), np.float32)


class Load(threading.Thread):
    """What was answered, by which version of the model, and what failed.

    Args:
        endpoint, model: As for `ServedModel`.
        pause: Seconds between two requests.
    """

    def __init__(self, endpoint: str, model: str, pixels: Pixels = BLANK, pause: float = 0.0) -> None:
        super().__init__()
        self.answers, self.failures = 0, list[str]()
        self.logits: dict[int, list[Logits]] = {}  # by version, the distinct ones
        self._where, self._pixels, self._pause, self._end = (endpoint, model), pixels, pause, threading.Event()

    @property
    def versions(self) -> set[int]:
        return set(self.logits)

    def run(self) -> None:
        with ServedModel(*self._where) as model:
            while not self._end.wait(self._pause):
                try:
                    answer = model.ask(self._pixels)
                except ServerError as error:
                    self.failures.append(str(error))
                    continue
                self.answers += 1
                known = self.logits.setdefault(answer.version, [])
                if not any(np.allclose(answer.logits, logits, atol=1e-4) for logits in known):
                    known.append(answer.logits)

    def __enter__(self) -> "Load":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()

    def go_on(self, answers: int) -> None:
        """Until so many more requests were answered."""
        wanted, deadline = self.answers + answers, time.monotonic() + 60
        while self.answers < wanted:
            assert time.monotonic() < deadline, f"no answers any more; failures: {self.failures[:3]}"
            time.sleep(0.05)

    def assert_none_failed(self) -> None:
        assert self.failures == [], f"{len(self.failures)} of {self.answers} requests failed: {self.failures[:3]}"
        for version, distinct in self.logits.items():
            assert len(distinct) == 1, f"version {version} must always answer the same"
