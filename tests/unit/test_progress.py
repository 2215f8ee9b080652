"""What `up` shows in a terminal, by events recorded from real runs (shortened)."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from progress import Board, State, diagnostics, duration, footer, progress, table

EVENTS = Path(__file__).with_name("events")
STAGES = ["prepare-data", "train", "export", "triton", "client", "report"]
GATE = (
    "client: resnet18_mnist version 1: accuracy 0.9833 is below minAccuracy 1.0; no other kept version has passed this "
    "check; results: /home/me/mnist-triton/storage/local/results/20261122-180317/results.json"
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def recorded(name: str) -> Iterator[dict[str, Any]]:
    for line in (EVENTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def replay(name: str, until: str | None = None, stopping: bool = False) -> tuple[Board, Clock]:
    """The board after the recorded events: all of them, or those up to the one that says `until`."""
    clock, first = Clock(), None
    board = Board(clock)
    board.stopping = stopping
    for event in recorded(name):
        first = event["timestamp"] if first is None else first
        clock.now = event["timestamp"] - first
        board.take(event)
        if until is not None and until in json.dumps(event):
            return board, clock
    assert until is None, f"the recording says nothing of {until!r}"
    board.close()
    return board, clock


def states(board: Board) -> dict[str, State]:
    return {name: board.state(row) for name, row in board.rows.items()}


def drawn(board: Board, width: int = 100) -> list[str]:
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(table(board))
    return console.export_text().splitlines()


def test_all_stages_wait_before_pulumi_says_anything() -> None:
    assert states(Board()) == dict.fromkeys(STAGES, "waiting"), "the table is there from the start"


def test_a_first_run_ends_with_every_stage_done() -> None:
    board, _ = replay("up")
    assert states(board) == dict.fromkeys(STAGES, "done"), "each stage was created"
    assert board.errors == board.messages == [], "nothing to say beside the table"
    assert footer(board) == "8 created, 75 s", "Pulumi's own count, and the time"


def test_a_training_shows_how_far_it_is_and_the_time_left_first() -> None:
    board, clock = replay("up", until="step 20/92")
    assert states(board) == dict.fromkeys(STAGES, "waiting") | {"prepare-data": "done", "train": "running"}
    clock.now += 3
    lines = drawn(board, width=80)
    assert "running 21 %" in lines[1], f"the share of the steps done: {lines[1]}"
    assert "step 20/92  7 s left  loss 0.3572" in lines[1], f"the time left must not be what is cut off: {lines[1]}"
    assert "21 s" in lines[1].split("running")[1], f"for how long it has run: {lines[1]}"
    assert "Ctrl-C stops it" in lines[-1], "and how to stop it"


def test_durations_are_those_between_a_stages_events() -> None:
    board, _ = replay("up")
    times = {name: board.seconds(row) for name, row in board.rows.items()}
    assert times["prepare-data"] == 5, "it began at 1795370456 and ended at 1795370461"
    assert times["report"] == 3, "it began at 1795370526 and ended at 1795370529"


def test_an_unchanged_run_says_so_of_every_stage() -> None:
    board, _ = replay("unchanged")
    assert states(board) == dict.fromkeys(STAGES, "unchanged"), "nothing ran"
    lines = drawn(board)
    assert all(line.split()[1:] == [stage, "unchanged"] for stage, line in zip(STAGES, lines, strict=False)), lines
    assert footer(board) == "8 unchanged, 5.0 s", "the stack, the provider's storage and six stages"


def test_a_missed_gate_fails_its_stage_and_what_follows_is_not_run() -> None:
    board, _ = replay("gate_missed")
    expected = {"prepare-data": "unchanged", "train": "unchanged", "export": "done", "triton": "done"}
    assert states(board) == expected | {"client": "failed", "report": "not run"}
    client = next(line for line in drawn(board) if "client" in line)
    assert "resnet18_mnist version 1: accuracy" in client, f"the reason begins in the table: {client}"
    assert diagnostics(board.errors).splitlines() == [
        "Diagnostics:",
        "  process:index:Job (client):",
        f"    error: {GATE}",
        "  error: update failed",
    ], "and is told in full and in Pulumi's words below it"


def test_settings_that_are_refused_are_all_told() -> None:
    board, _ = replay("refused")
    told = diagnostics(board.errors)
    assert "error: mnist:minAcuracy is not a setting; did you mean mnist:minAccuracy?" in told, told
    assert not board.began, "and there is no stage to show"


def test_an_interrupted_stage_is_stopped_not_failed() -> None:
    board, _ = replay("interrupted", stopping=True)
    assert states(board)["train"] == "stopped", "the user wanted it"
    assert states(board)["export"] == "not run"
    assert [message.text.partition(";")[0] for message in board.messages] == ["^C received"], "what Pulumi says of it"
    assert "train: interrupted; the next `up` goes on from here" in diagnostics(board.errors), "and how to go on"


def test_a_stage_that_was_running_when_pulumi_was_killed_has_failed() -> None:
    board, clock = replay("up", until="step 20/92")
    clock.now += 10
    board.close()
    assert states(board)["train"] == "failed", "nobody waits for it any more"


def test_on_kubernetes_what_stages_share_has_lines_of_its_own_above_them() -> None:
    board, _ = replay("cluster_up")
    assert list(board.rows)[-6:] == STAGES, "the stages in their order"
    assert list(board.rows)[:-6] == ["workspace", "monitoring"], "above them what is made for all"
    assert set(states(board).values()) == {"done"}, "all of it was created"
    assert "2 resources" in drawn(board)[0], "a group says how many resources it has"
    assert footer(board) == "32 created, 70 s"


def test_on_kubernetes_a_stage_is_done_when_its_job_is_not_when_it_is_declared() -> None:
    board, clock = replay("cluster_up", until='Waiting for Job \\"job-ns/train\\" to start')
    assert states(board)["train"] == "running", "its component has long been registered"
    assert board.jobs == {"train": ("job-ns", "train")}, "and its log can be followed"
    board.log("train", "step 100/235  loss 0.1  accuracy 0.97  812 images/s  40 s left")
    clock.now += 5
    line = next(line for line in drawn(board) if "train" in line)
    assert "running 42 %" in line and "step 100/235  40 s left" in line, f"as on this machine: {line}"


def test_on_kubernetes_a_replaced_job_counts_from_the_end_of_the_old_one_to_the_end_of_the_new() -> None:
    board, _ = replay("cluster_replaced", until='"op": "delete-replaced", "urn": "urn:pulumi:dev::mnist::mnist:pip')
    assert states(board)["train"] == "running" and not board.jobs, "while the old Job goes there is no log to follow"
    board, _ = replay("cluster_replaced")
    assert states(board) == dict.fromkeys(STAGES, "done") | {"prepare-data": "unchanged"}, "no group was changed"
    assert board.seconds(board.rows["train"]) == 16, "from 1795374152 to 1795374168"
    assert board.rows["train"].detail == "", "that it was waited for is no news any more"


def test_on_kubernetes_a_failed_job_fails_its_stage() -> None:
    board, _ = replay("cluster_failed")
    assert states(board)["client"] == "failed" and states(board)["report"] == "not run"
    told = diagnostics(board.errors)
    assert "  kubernetes:batch/v1:Job (client-job):\n    error: 2 errors occurred:" in told, told
    assert "[BackoffLimitExceeded] Job has reached the specified backoff limit" in told, "all lines of it"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("name", ["up", "unchanged", "gate_missed", "interrupted", "cluster_replaced"])
def test_a_stage_takes_one_line_at_any_width(name: str, width: int) -> None:
    lines = drawn(replay(name)[0], width)
    assert len(lines) == len(STAGES) + 1, f"a line a stage and the last one: {lines}"
    assert max(map(len, lines)) <= width, "none wider than the terminal"


def test_run_through_leaves_out_the_stages_after_it() -> None:
    board = Board()
    board.take({"preludeEvent": {"config": {"mnist:runThrough": "export"}}})
    assert list(states(board)) == ["prepare-data", "train", "export"], "the others will not run"
    board.take({"preludeEvent": {"config": {"mnist:runThrough": "nonsense"}}})
    assert list(states(board)) == ["prepare-data", "train", "export"], "the program refuses it, not the view"


def test_warnings_and_other_lasting_messages_are_kept_for_printing_in_full() -> None:
    board, _ = replay("up", until="step 10/92")
    urn = "urn:pulumi:local::mnist::process:index:Job::train"
    text = "best_model.pth is damaged; it is replaced " + "x" * 300
    board.take({"diagnosticEvent": {"urn": urn, "prefix": "warning: ", "message": f"{text}\n", "severity": "warning"}})
    assert [message.text for message in board.messages] == [f"warning: {text}"], "nothing of it is cut off"
    board.take({"diagnosticEvent": {"message": "said by print()\n", "severity": "info#err"}})
    assert board.messages[-1].text == "said by print()", "what the program prints is shown, too"
    board.take({"diagnosticEvent": {"message": "registering\n", "severity": "debug"}})
    assert len(board.messages) == 2, "what is for debugging is not"


def test_errors_that_are_no_diagnostics_are_told_too() -> None:
    board = Board()
    board.take({"errorEvent": {"error": "the engine broke"}})
    board.take({"policyEvent": {"policyName": "no-public-services", "message": "triton is public"}})
    told = diagnostics(board.errors)
    assert "error: the engine broke" in told and "no-public-services: triton is public" in told, told


def test_a_plugin_that_is_loaded_is_said_in_the_last_line() -> None:
    board = Board()
    load = {"type": "plugin-download", "id": "1", "message": "[resource plugin kubernetes-4.24.0] downloading"}
    board.take({"progressEvent": {**load, "received": 30, "total": 120, "done": False}})
    assert footer(board).endswith("[resource plugin kubernetes-4.24.0] downloading 25 %"), "it may take a minute"
    board.take({"progressEvent": {**load, "received": 120, "total": 120, "done": True}})
    assert "Ctrl-C" in footer(board), "and then goes away"


def test_a_line_with_colours_of_its_own_does_not_colour_the_table() -> None:
    board, _ = replay("up", until="step 10/92")
    urn = "urn:pulumi:local::mnist::process:index:Job::train"
    board.take(
        {"diagnosticEvent": {"urn": urn, "message": "\x1b[31mred\x1b[0m\n", "severity": "info", "ephemeral": True}}
    )
    assert board.rows["train"].detail == "red"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.9, "9.9 s"), (9.96, "10 s"), (99.4, "99 s"), (99.6, "1 min 40 s"), (3600, "1 h 0 min")],
)
def test_a_duration_is_said_in_its_unit(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_line_that_is_no_progress_stays_as_it_is() -> None:
    assert progress("sending single images, 4 at a time") == ("sending single images, 4 at a time", "")
    assert progress("step 5/10") == ("step 5/10", "50 %"), "also one that says no more"
