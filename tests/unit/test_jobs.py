"""Jobs: what they print is passed on, why they fail is said, and nothing outlives them."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from process import jobs, records
from process.errors import CancelledError, ProcessError
from tests.support import ROOT, gone

pytestmark = pytest.mark.usefixtures("no_strays")

# A child and a grandchild that prints its number and takes no heed of SIGTERM.
FAMILY = """
import subprocess, sys
deaf = "import os,signal,time as t; signal.signal(15, signal.SIG_IGN); print(os.getpid(), flush=True); t.sleep(60)"
subprocess.Popen([sys.executable, "-S", "-c", deaf]).wait()
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


class Heard(list[str]):
    """What a job said; sets an event once it said something."""

    def __init__(self) -> None:
        self.something = threading.Event()

    def __call__(self, line: str) -> None:
        self.append(line)
        self.something.set()


def run(code: str, said: Heard | None = None) -> None:
    say = Heard() if said is None else said
    jobs.run_command("train", python(code), say, threading.Event(), timeout=60)


def test_what_a_job_prints_is_passed_on_line_by_line() -> None:
    said = Heard()
    run("import sys; print('one'); print('two', file=sys.stderr, flush=True); print('drei ü')", said)
    assert sorted(said) == ["drei ü", "one", "two"], "standard output and standard error"


def test_output_that_is_no_text_is_no_obstacle() -> None:
    said = Heard()
    run("import os; os.write(1, b'\\xff\\xfe done\\n')", said)
    assert said[0].endswith("done"), "replaced, not raised"


def test_the_error_line_of_a_job_becomes_the_message() -> None:
    with pytest.raises(ProcessError) as caught:
        run("import sys; print('working'); print('error: the disk is full', file=sys.stderr); sys.exit(1)")
    assert str(caught.value) == "train: the disk is full", "the stage, then its own words"


def test_without_an_error_line_the_status_and_the_last_line_are_told() -> None:
    with pytest.raises(ProcessError) as caught:
        run("print('last words', flush=True); raise SystemExit(3)")
    assert str(caught.value) == "train: exit status 3: last words", "all that is known"


def test_a_silent_failure_is_told_by_its_status() -> None:
    with pytest.raises(ProcessError, match=r"^train: exit status 4$"):
        run("raise SystemExit(4)")


def test_a_job_killed_from_outside_says_by_which_signal() -> None:
    with pytest.raises(ProcessError, match=r"^train: killed by signal 9 \(out of memory\?\)$"):
        run("import os; os.kill(os.getpid(), 9)")


def timed_out_once(said: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the time be over as soon as the job has said something, however slow the machine."""
    clock = SimpleNamespace(monotonic=lambda: 1000.0 if said.something.is_set() else 0.0)
    monkeypatch.setattr(jobs, "time", clock)


def test_a_timeout_ends_the_grandchildren_too(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Heard()
    timed_out_once(said, monkeypatch)
    with pytest.raises(ProcessError, match="stopped after 60 s; raise mnist:stageTimeoutMinutes"):
        run(FAMILY, said)
    with contextlib.suppress(psutil.NoSuchProcess):  # not there any more is what is wanted
        assert gone([psutil.Process(int(said[0]))]) == [], "the whole process group was killed"


def test_a_job_deaf_to_sigterm_is_killed_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = tmp_path / "guard.py"
    text = jobs.GUARD.read_text(encoding="utf-8")
    impatient.write_text(text.replace("GRACE_SECONDS = 20.0", "GRACE_SECONDS = 0.2"), encoding="utf-8")
    assert impatient.read_text(encoding="utf-8") != text, "this test is meant to shorten the guard's patience"
    monkeypatch.setattr(jobs, "GUARD", impatient)
    deaf = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    said = Heard()
    timed_out_once(said, monkeypatch)
    with pytest.raises(ProcessError, match="stopped after 60 s"):
        run(deaf, said)


def test_cancelling_lets_the_job_end_by_itself() -> None:
    code = """
import signal, sys, time
def stop(*_):
    print("wrote a checkpoint", flush=True)
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
print("up", flush=True)
time.sleep(60)
"""
    said, cancelled = Heard(), threading.Event()

    def cancel_once_up() -> None:
        said.something.wait(30)
        cancelled.set()

    threading.Thread(target=cancel_once_up).start()
    with pytest.raises(CancelledError, match="train: interrupted; the next `up` goes on from here"):
        jobs.run_command("train", python(code), said, cancelled, 60)
    assert said == ["up", "wrote a checkpoint"], "it was asked, not killed"


def test_a_killed_parent_leaves_no_stray(tmp_path: Path) -> None:
    parent_code = f"""
import sys, threading
sys.path.insert(0, {str(ROOT / "infra")!r})
from process import jobs
jobs.run_command("train", [sys.executable, "-S", "-c", {FAMILY!r}], lambda line: print(line, flush=True),
                 threading.Event(), 60)
"""
    with subprocess.Popen([sys.executable, "-c", parent_code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert int(parent.stdout.readline()) > 0, "the grandchild is up"
        family = psutil.Process(parent.pid).children(recursive=True)
        assert len(family) == 3, "guard, child, grandchild"
        os.kill(parent.pid, signal.SIGKILL)
        assert gone(family) == [], "all ended with the parent"


def test_sigterm_to_the_guard_ends_the_job() -> None:
    with subprocess.Popen(
        [sys.executable, "-S", str(jobs.GUARD), *python(FAMILY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as guard:
        assert guard.stdout is not None
        assert int(guard.stdout.readline()) > 0, "the grandchild is up"
        family = psutil.Process(guard.pid).children(recursive=True)
        guard.terminate()
        assert gone(family) == [], "the guard passes it on"


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    code = f"open({str(tmp_path / 'runs')!r}, 'a').write('x')"
    return {"name": "train", "command": python(code), "directory": str(tmp_path), "fingerprint": "f", "after": ["a"]}


def runs(inputs: dict[str, Any]) -> int:
    return len((Path(inputs["directory"]) / "runs").read_text(encoding="utf-8"))


def run_job(inputs: dict[str, Any]) -> dict[str, Any]:
    return jobs.run_job(inputs, Heard(), threading.Event(), 60)


def test_an_identical_run_is_not_repeated(inputs: dict[str, Any]) -> None:
    first, second = run_job(inputs), run_job(inputs)
    assert runs(inputs) == 1, "an interrupted `up` that did not record it does not cost it twice"
    assert first["run"] == second["run"], "it is the same run for those after it"


@pytest.mark.parametrize("change", [{"fingerprint": "g"}, {"after": ["b"]}])
def test_a_changed_job_or_upstream_runs_again(inputs: dict[str, Any], change: dict[str, Any]) -> None:
    first, second = run_job(inputs), run_job({**inputs, **change})
    assert runs(inputs) == 2, "it ran again"
    assert first["run"] != second["run"], "so what follows runs again, too"


def test_a_failed_job_counts_as_not_done(inputs: dict[str, Any]) -> None:
    run_job(inputs)
    with pytest.raises(ProcessError):
        run_job({**inputs, "fingerprint": "g", "command": python("raise SystemExit(1)")})
    assert records.read(inputs["directory"], "train") is None, "the record of the earlier run is gone"
    run_job(inputs)
    assert runs(inputs) == 2, "the earlier one runs again: its results may have been overwritten"
