"""Following Pulumi while it runs: here a script that writes what a real one wrote, and ends as that did."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import watch
from progress import Board, diagnostics
from tests.checkout import wait_until

EVENTS = Path(__file__).with_name("events")
LOCKED = "error: the stack is currently locked by 1 lock(s). Either wait for the other process(es) to end"
TRAIN = "urn:pulumi:dev::mnist::mnist:pipeline:StageJob$kubernetes:batch/v1:Job::train-job"


def fake(body: str) -> Callable[..., "subprocess.Popen[bytes]"]:
    """Starts a script instead of Pulumi; it finds the event log's path in `log`."""
    begin = "import pathlib, signal, sys, time; log = pathlib.Path(sys.argv[1].partition('=')[2]);"

    def start(*arguments: str, **keywords: Any) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-c", f"{begin}\n{body}", *arguments], **keywords)

    return start


def replayed(name: str, status: int) -> Callable[..., "subprocess.Popen[bytes]"]:
    return fake(f"log.write_text(open({str(EVENTS / name)!r}).read()); print('what Pulumi prints'); sys.exit({status})")


def test_a_run_that_succeeds_shows_the_table_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    assert watch.watch(replayed("up.jsonl", 0)) == 0, "Pulumi's status"
    said = capfd.readouterr().out
    assert said.count(" done ") == 6, f"a line a stage: {said}"
    assert "what Pulumi prints" not in said and "Diagnostics" not in said, "its own display would say it twice"


def test_a_run_that_fails_ends_with_its_errors_in_full(capfd: pytest.CaptureFixture[str]) -> None:
    assert watch.watch(replayed("gate_missed.jsonl", 255)) == 255, "Pulumi's status"
    table, _, told = capfd.readouterr().out.partition("Diagnostics:")
    assert " failed " in table, f"in the table: {table}"
    error = "error: client: resnet18_mnist version 1: accuracy 0.9833 is below minAccuracy 1.0; no other kept version"
    assert f"{error} has passed this check; results: /home/me" in told, f"and below it, on one line: {told}"


def test_settings_that_are_refused_show_no_table(capfd: pytest.CaptureFixture[str]) -> None:
    assert watch.watch(replayed("refused.jsonl", 255)) == 255
    said = capfd.readouterr().out
    assert "did you mean mnist:minAccuracy?" in said, said
    assert "prepare-data" not in said, f"stages that were never looked at would bury the reason: {said}"


def test_what_pulumi_says_before_any_event_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert watch.watch(fake(f"print({LOCKED!r}, file=sys.stderr); sys.exit(255)")) == 255
    assert LOCKED in capfd.readouterr().out, "a locked stack is said on standard error, without an event"


def test_a_failure_without_a_word_shows_what_there_is(capfd: pytest.CaptureFixture[str]) -> None:
    assert watch.watch(fake("print('panic: something'); sys.exit(2)")) == 2
    assert "panic: something" in capfd.readouterr().out, "nothing is hidden"


def test_events_of_a_kind_not_known_are_let_pass(capfd: pytest.CaptureFixture[str]) -> None:
    lines = [
        "not JSON",
        "[]",
        "7",
        "{}",
        '{"resourcePreEvent": {}}',
        '{"diagnosticEvent": null}',
        '{"newEvent": {"a": 1}}',
    ]
    content = "\n".join(lines) + "\n" + (EVENTS / "unchanged.jsonl").read_text(encoding="utf-8")
    assert watch.watch(fake(f"log.write_text({content!r})")) == 0, "a later Pulumi may have more kinds of events"
    assert capfd.readouterr().out.count(" unchanged") == 7, "and what is known is shown: six stages, and the count"


def test_ctrl_c_is_left_to_pulumi_and_its_end_is_waited_for(capfd: pytest.CaptureFixture[str]) -> None:
    """Twice: the second one must not end this program either."""
    body = """
got = []
signal.signal(signal.SIGINT, lambda *_: got.append(1))
while len(got) < 2: time.sleep(0.02)
print('both', file=sys.stderr); sys.exit(130)
"""
    started = list[subprocess.Popen[bytes]]()

    def start(*arguments: str, **keywords: Any) -> "subprocess.Popen[bytes]":
        started.append(fake(body)(*arguments, **keywords))
        return started[0]

    def press() -> None:
        time.sleep(1)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            started[0].send_signal(signal.SIGINT)
            time.sleep(0.3)

    before = signal.getsignal(signal.SIGINT)
    presser = threading.Thread(target=press)
    presser.start()
    status = watch.watch(start)
    presser.join()
    assert status == 130, "Pulumi's own status, after its own end"
    assert "both" in capfd.readouterr().out, "and what it said"
    assert signal.getsignal(signal.SIGINT) is before, "afterwards Ctrl-C is as before"


def test_lines_are_taken_when_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = watch.Lines(path)
    assert lines.new() == [], "no file yet"
    path.write_bytes(b"one\ntw")
    assert lines.new() == ["one"]
    with path.open("ab") as file:
        file.write("o\ndr\u00e9i".encode())
    assert lines.new() == ["two"], "the rest of a line that was cut"
    assert lines.new() == [], "nothing twice"


def waiting_for_the_job() -> Board:
    board = Board()
    board.take({"preludeEvent": {"config": {"kubernetes:context": "minikube"}}})
    stage = {"type": "mnist:pipeline:StageJob", "urn": "urn:of-train::train", "parent": "", "inputs": {}}
    board.take({"resourcePreEvent": {"metadata": {"op": "create", "urn": "urn:of-train::train", "new": stage}}})
    job = {
        "custom": True,
        "parent": "urn:of-train::train",
        "inputs": {"metadata": {"namespace": "ns", "name": "train"}},
    }
    metadata = {"op": "create", "urn": TRAIN, "type": "kubernetes:batch/v1:Job", "new": job}
    board.take({"resourcePreEvent": {"metadata": metadata}})
    return board


def kubectl(directory: Path, body: str) -> str:
    path = directory / "kubectl"
    path.write_text(f'#!/bin/sh\necho "$@" >> {directory}/calls\n{body}\n')
    path.chmod(0o755)
    return str(path)


def follow(logs: watch.JobLogs, condition: Callable[[], bool], what: str) -> None:
    def followed() -> bool:
        logs.follow()
        return condition()

    wait_until(followed, 10, what)


def test_the_log_of_a_running_job_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LAST_LINES_SECONDS", 0.1)
    board = waiting_for_the_job()
    said = "echo step 1/10; echo 'warning: old data'; echo step 2/10; exec sleep 60"
    logs = watch.JobLogs(board, kubectl(tmp_path, said))
    follow(logs, lambda: board.rows["train"].detail == "step 2/10", "the log is shown")
    call = (tmp_path / "calls").read_text().strip()
    assert call == "--context=minikube --namespace=ns logs --follow job/train", "of this cluster's Job"
    assert [message.text for message in board.messages] == ["warning: old data"], "a warning stays, once"
    waiting = {"urn": TRAIN, "message": "Waiting for Job", "severity": "info", "ephemeral": True}
    board.take({"diagnosticEvent": waiting})
    assert board.rows["train"].detail == "step 2/10", "what is said of waiting does not hide it"
    logs.close()


def test_the_last_lines_of_a_log_are_waited_for(tmp_path: Path) -> None:
    board = waiting_for_the_job()
    logs = watch.JobLogs(board, kubectl(tmp_path, "sleep 1; echo 'error: accuracy 0.5 is below minAccuracy 0.97'"))
    logs.follow()
    metadata = {"op": "create", "urn": TRAIN, "type": "kubernetes:batch/v1:Job"}
    failure = {"urn": TRAIN, "prefix": "error: ", "message": "2 errors occurred:\n\t* the Job", "severity": "error"}
    board.take({"diagnosticEvent": failure})
    board.take({"resOpFailedEvent": {"metadata": metadata}})
    assert board.jobs == {}, "the Job's end was told before its last line"
    logs.follow()
    logs.close()
    assert board.rows["train"].detail == "accuracy 0.5 is below minAccuracy 0.97", "which says more than Kubernetes"
    told = diagnostics(board.errors)
    assert "2 errors occurred" in told and "error: accuracy 0.5 is below minAccuracy" in told, f"both are told: {told}"


def test_a_job_without_a_pod_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "FOLLOW_AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(watch, "LAST_LINES_SECONDS", 0.1)
    board = waiting_for_the_job()
    started = tmp_path / "started"
    logs = watch.JobLogs(board, kubectl(tmp_path, f"test -e {started} || exit 1; echo running; exec sleep 60"))
    follow(logs, (tmp_path / "calls").exists, "it is asked for")
    started.touch()
    follow(logs, lambda: board.rows["train"].detail == "running", "and again")
    logs.close()


def test_without_kubectl_there_are_no_logs(tmp_path: Path) -> None:
    board = waiting_for_the_job()
    logs = watch.JobLogs(board, str(tmp_path / "no-kubectl"))
    logs.follow()
    assert board.rows["train"].detail == "", "the view goes on without them"
    logs.close()


@pytest.mark.parametrize(
    ("terminal", "environment", "wanted"),
    [
        (True, {"TERM": "xterm-256color"}, True),
        (True, {"TERM": "dumb"}, False),
        (True, {"TERM": "xterm-256color", "CI": "true"}, False),
        (False, {"TERM": "xterm-256color", "FORCE_COLOR": "1"}, False),
    ],
)
def test_it_draws_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, environment: dict[str, str], wanted: bool
) -> None:
    for name in ("CI", "TERM", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    assert watch.is_wanted() is wanted
