"""What `up` shows in a terminal: a line a stage, kept by the events of Pulumi's engine.

The events are those of `pulumi up --event-log`: sdk/go/common/apitype/events.go in pulumi/pulumi describes them.
"""

import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "infra"))

from pipeline.stages import STAGES, stages_through

Event = Mapping[str, Any]
State = Literal["waiting", "running", "done", "unchanged", "failed", "stopped", "not run"]

STACK_TYPE = "pulumi:pulumi:Stack"
JOB_TYPE = "kubernetes:batch/v1:Job"
# Steps that are not a resource's last: what replaces it is made before or after them.
PASSING = {"delete", "delete-replaced", "discard", "discard-replaced", "replace", "remove-pending-replace"}
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
TURNS_PER_SECOND = 0.5
MARKS: dict[State, tuple[str, str]] = {
    "waiting": ("·", "dim"),
    "running": (SPINNER, "bold cyan"),
    "done": ("✓", "green"),
    "unchanged": ("=", "dim"),
    "failed": ("✗", "bold red"),
    "stopped": ("■", "yellow"),
    "not run": ("·", "dim"),
}
WORDS = {"same": "unchanged", "create": "created", "update": "updated", "replace": "replaced", "delete": "deleted"}
HINT = "Ctrl-C stops it; the next `make up` goes on from there"
STOPPING = "stopping; Ctrl-C again ends it at once"


@dataclass(frozen=True)
class Message:
    """What Pulumi has to say for good; `about` is a resource's name and type, or empty."""

    text: str
    about: tuple[str, str] | None = None
    severity: str = "info"


@dataclass
class Row:
    """A stage, or a group of resources (images, workspace) that stages need."""

    name: str
    is_group: bool = False
    detail: str = ""
    started: float | None = None
    ended: float | None = None
    changed: bool = False
    failure: State | None = None
    logged: bool = False
    active: set[str] = field(default_factory=set)  # URNs in the making
    finished: set[str] = field(default_factory=set)


class Board:
    """The state of every stage, by the events so far.

    Attributes:
        messages: What to print above the table; the caller takes them out.
        errors: What to print in full at the end.
        jobs: Of the rows whose Kubernetes Job is being waited for: its namespace and name.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._stages = {stage.name: Row(stage.name) for stage in STAGES}
        self._groups: dict[str, Row] = {}
        self.messages: list[Message] = []
        self.errors: list[Message] = []
        self.jobs: dict[str, tuple[str, str]] = {}
        self.config: Mapping[str, str] = {}
        self.changes: Mapping[str, int] = {}
        self.loading = ""
        self.stopping = self.closed = False
        self._clock, self._started = clock, clock()
        self._resources: dict[str, Mapping[str, Any]] = {}  # what the events said of each, by URN

    @property
    def rows(self) -> dict[str, Row]:
        """By name, in the order they are shown: what is made for all stages comes first, where anything is made."""
        return {**{name: row for name, row in self._groups.items() if row.changed}, **self._stages}

    def take(self, event: Event) -> None:
        """Learn from one event; kinds that say nothing of stages are let pass."""
        if prelude := event.get("preludeEvent"):
            self.config = prelude.get("config") or {}
            last = self.config.get("mnist:runThrough")
            if last in self._stages:  # else the program refuses it
                self._stages = {stage.name: Row(stage.name) for stage in stages_through(last)}
        elif before := event.get("resourcePreEvent"):
            self._begin(before["metadata"])
        elif after := event.get("resOutputsEvent"):
            self._end(after["metadata"])
        elif failure := event.get("resOpFailedEvent"):
            self._end(failure["metadata"], failed=True)
        elif diagnostic := event.get("diagnosticEvent"):
            self._diagnose(diagnostic)
        elif output := event.get("stdoutEvent"):
            self.messages.append(Message(output["message"].rstrip()))
        elif fault := event.get("errorEvent"):
            self.errors.append(Message(f"error: {fault['error']}", severity="error"))
        elif violation := event.get("policyEvent"):
            self.errors.append(Message(f"{violation['policyName']}: {violation['message']}", severity="error"))
        elif load := event.get("progressEvent"):  # of a plugin
            share = f" {100 * load['received'] // load['total']} %" if load["total"] > 0 else ""
            self.loading = "" if load["done"] else f"{load['message']}{share}"
        elif summary := event.get("summaryEvent"):
            self.changes = summary["resourceChanges"] or {}

    def log(self, name: str, line: str) -> None:
        """Show a line out of the log of the row's Job, from now on instead of what its provider says of waiting."""
        if name in self.rows:
            self.rows[name].logged = True
            self._say(self.rows[name], line)

    def _say(self, row: Row, line: str) -> None:
        row.detail = Text.from_ansi(line.strip()).plain or row.detail

    def close(self) -> None:
        """Pulumi has ended: nothing that waits will run."""
        self.closed = True
        for row in self.rows.values():
            if row.active and row.ended is None:
                row.failure, row.ended = self._failure, self._clock()

    def state(self, row: Row) -> State:
        if row.failure is not None:
            return row.failure
        if row.active and row.changed:
            return "running"
        if row.finished:
            return "done" if row.changed else "unchanged"
        return "not run" if self.closed else "waiting"

    @property
    def began(self) -> bool:
        """Whether anything of a row was done or looked at."""
        return any(row.active or row.finished for row in self.rows.values())

    @property
    def _failure(self) -> State:
        return "stopped" if self.stopping else "failed"

    def seconds(self, row: Row | None = None) -> float | None:
        """How long the row, or all of it, has taken; None for a row that did nothing."""
        started, ended = (self._started, None) if row is None else (row.started, row.ended)
        return None if started is None else (self._clock() if ended is None else ended) - started

    def _begin(self, metadata: Mapping[str, Any]) -> None:
        urn, operation = metadata["urn"], metadata["op"]
        resource = metadata.get("new") or metadata.get("old") or {}
        self._resources[urn] = resource
        row = self._row(urn, begins=operation != "delete")
        if row is None or not resource.get("custom") or operation == "delete" or urn in row.finished:
            return
        row.active.add(urn)
        if operation == "same":
            return
        row.changed, row.ended = True, None
        row.started = self._clock() if row.started is None else row.started
        if metadata["type"] == JOB_TYPE and operation not in PASSING:
            names = resource["inputs"]["metadata"]
            self.jobs[row.name] = (names["namespace"], names["name"])

    def _end(self, metadata: Mapping[str, Any], failed: bool = False) -> None:
        urn, row = metadata["urn"], self._row(metadata["urn"])
        if row is None or urn not in row.active or (metadata["op"] in PASSING and not failed):
            return
        row.active.discard(urn)
        row.finished.add(urn)
        row.failure = row.failure or (self._failure if failed else None)
        row.ended = None if row.active else self._clock()
        if self.jobs.pop(row.name, None) and not (failed or row.logged):
            row.detail = ""  # it was waited for, which is no news any more

    def _row(self, urn: str, begins: bool = False) -> Row | None:
        """The row of the outermost resource around this one; a group gets its row when the first in it begins."""
        resource, inside = self._resources.get(urn), False
        while resource is not None and resource["parent"] and STACK_TYPE not in resource["parent"]:
            urn, resource, inside = resource["parent"], self._resources.get(resource["parent"]), True
        name = urn.rpartition("::")[2]
        if begins and inside and name not in self._stages:
            self._groups.setdefault(name, Row(name, is_group=True))
        return self._stages.get(name) or self._groups.get(name)

    def _diagnose(self, diagnostic: Mapping[str, Any]) -> None:
        severity, urn = diagnostic["severity"], diagnostic.get("urn", "")
        if severity == "debug":
            return
        row, text = self._row(urn) if urn else None, diagnostic["message"].rstrip()
        ephemeral = diagnostic.get("ephemeral", False)
        if row is not None and not row.logged:
            line = text.rpartition("\n")[2] if ephemeral else text.partition("\n")[0]
            self._say(row, line.removeprefix(f"{row.name}: "))
        if ephemeral or not text:
            return
        about = (urn.rpartition("::")[2], urn.split("::")[2].rpartition("$")[2]) if urn else None
        message = Message(diagnostic.get("prefix", "") + text, about, severity)
        (self.errors if severity == "error" else self.messages).append(message)


def table(board: Board) -> RenderableType:
    """The stages, as wide as the terminal: what does not fit of a line is cut off at its end."""
    rows = Table.grid(padding=(0, 2, 0, 0), expand=True)
    rows.add_column(no_wrap=True)
    rows.add_column(no_wrap=True, min_width=len("running 99 %"))
    rows.add_column(no_wrap=True, min_width=len("99 s"), justify="right")
    rows.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for row in board.rows.values():
        state, seconds = board.state(row), board.seconds(row)
        mark, style = MARKS[state]
        turned = int((seconds or 0) * TURNS_PER_SECOND * len(mark)) % len(mark)
        detail, share = progress(row.detail) if state == "running" else (summary(row, state), "")
        rows.add_row(
            Text.assemble((mark[turned], style), " ", (row.name, "dim" if style == "dim" else "")),
            Text(f"{state} {share}".rstrip(), style),
            "" if seconds is None else duration(seconds),
            Text(detail, "red" if state == "failed" else "dim"),
        )
    return Group(rows, Text(footer(board), "dim", no_wrap=True, overflow="ellipsis"))


def summary(row: Row, state: State) -> str:
    """What is left to say when nothing happens any more."""
    if row.is_group and state == "done":
        return f"{len(row.finished)} resource{'s' * (len(row.finished) > 1)}"
    return "" if state == "unchanged" else row.detail


def progress(line: str) -> tuple[str, str]:
    """A training's line with the time left brought forward, so that it is never what is cut off; and the per cent."""
    step = re.match(r"step (\d+)/(\d+)\b", line)
    if step is None:
        return line, ""
    first, *rest = line.split("  ")
    if rest and rest[-1].endswith(" left"):
        rest = [rest[-1], *rest[:-1]]
    return "  ".join([first, *rest]), f"{100 * int(step[1]) // max(1, int(step[2]))} %"


def footer(board: Board) -> str:
    passed = duration(board.seconds() or 0)
    if not board.closed:
        return f"{passed}  {STOPPING if board.stopping else board.loading or HINT}"
    counts = [f"{count} {WORDS.get(change, change)}" for change, count in board.changes.items()]
    return f"{', '.join(counts) or 'nothing changed'}, {passed}"


def duration(seconds: float) -> str:
    """In the unit one would say it in."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def diagnostics(errors: Sequence[Message]) -> str:
    """The errors in full and in Pulumi's words, grouped by resource as Pulumi does it."""
    groups: dict[tuple[str, str] | None, list[str]] = {}
    for error in errors:
        groups.setdefault(error.about, []).append(error.text)
    lines = ["Diagnostics:"]
    for about, texts in groups.items():
        if about is not None:
            lines.append(f"  {about[1]} ({about[0]}):")
        indent = "    " if about is not None else "  "
        lines += [f"{indent}{line}" for text in texts for line in text.splitlines()]
    return "\n".join(lines)
