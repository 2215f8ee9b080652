"""Child processes that measure: asked by one line of JSON, they answer with one.

Each alternative's threads, allocations and settings stay its own, and this process stays small: Linux counts a child's
peak memory from its parent's on.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from bench import ROOT
from bench.errors import BenchError

Answer = dict[str, Any]


class Worker:
    """`python -m module arguments` in a process of its own."""

    def __init__(self, module: str, *arguments: object) -> None:
        self.module = module
        command = [sys.executable, "-m", module, *map(str, arguments)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(self, **request: Any) -> Answer:
        """
        Raises:
            BenchError: the worker failed; its traceback stands on standard error.
        """
        self.begin(**request)
        return self.answer()

    def begin(self, **request: Any) -> None:
        try:
            _stream(self._process.stdin).write(json.dumps(request) + "\n")
        except BrokenPipeError:
            raise BenchError(f"{self.module} ended before it was asked {request}") from None

    def answer(self) -> Answer:
        line = _stream(self._process.stdout).readline()
        if not line:
            raise BenchError(f"{self.module} ended with status {self._process.wait()}; its error is above")
        answer: Answer = json.loads(line)
        return answer

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            _stream(stream).close()
        self._process.wait()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._process.kill()
        self.close()


def serve(answer: Callable[[Answer], Answer]) -> None:
    """The worker's side: answer until nothing more is asked. What libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")
        answers.flush()


def peak_megabytes() -> float:
    """This process's largest resident memory so far."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return round(int(kilobytes) * 1024 / 1e6, 1)


def _stream(stream: "IO[str] | None") -> "IO[str]":
    assert stream is not None, "it is piped"
    return stream
