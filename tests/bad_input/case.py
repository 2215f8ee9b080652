"""What a case of bad input is, and the bench it does its damage on."""

import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mnist.lock import LOCK_FILE
from mnist.sources import INCOMING
from mnist.storage import Storage
from tests.bad_input.server import Server
from tests.support import refusal, run_main

# What a refused run may leave: its log, its lock, and downloads that are gone on with.
WORKING_FILES = {"logs", LOCK_FILE, INCOMING}


class Malicious:
    """Pickled, it makes a file when it is read."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.victim,)


class Bench:
    """A place for one case: a copy of a working storage, and a real Triton that must go on serving.

    What a case must not lose is noted here while it does its damage, and checked afterwards.
    """

    def __init__(self, root: Path, fixtures: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.storage = Storage(root / "storage")
        self.monkeypatch = monkeypatch
        self._fixtures = fixtures
        self._checks: list[Callable[[], None]] = []

    def copy(self, fixture: str, *parts: str) -> Storage:
        """Copy these directories of a fixture's storage, to be damaged."""
        original: Storage = self._fixtures.getfixturevalue(fixture)
        for part in parts:
            shutil.copytree(original.root / part, self.storage.root / part, symlinks=True)
        return self.storage

    @property
    def server(self) -> Server:
        server: Server = self._fixtures.getfixturevalue("server")
        self._checks.append(server.check_it_serves)
        return server

    def refused_models(self) -> dict[str, str]:
        lines: dict[str, str] = self._fixtures.getfixturevalue("refused_models")
        return lines

    def malicious(self) -> Malicious:
        """To be pickled; afterwards it must be seen not to have run, and that it would have is shown."""
        content = Malicious(self.root / "victim")

        def check() -> None:
            assert not content.victim.exists(), "nothing was run"
            pickle.loads(pickle.dumps(content))
            assert content.victim.exists(), "it would have been, by anyone less careful"

        self._checks.append(check)
        return content

    def refused(self, main: Callable[[list[str]], int], *options: object) -> str:
        """Run a stage on the storage; the line it fails with."""
        before = contents(self.storage.root)
        line = refusal(run_main(main, f"--storage={self.storage.root}", *options))
        self._checks.append(lambda: check_same(before, contents(self.storage.root)))
        return line

    def check_nothing_was_lost(self) -> None:
        for check in self._checks:
            check()

    def clear(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


@dataclass(frozen=True)
class Case:
    """One fault of a user, an attacker or a disk."""

    name: str
    provoke: Callable[[Bench], str]  # brings it about for real; the line it is refused with
    expected: tuple[str, ...]  # in that line: what is wrong, where ({root} is the bench's), what to do


def contents(root: Path) -> dict[str, tuple[int, ...] | str]:
    """What lies there: a file that is written anew has another time or number, even with the same bytes."""
    found: dict[str, tuple[int, ...] | str] = {}
    for path in root.rglob("*"):
        relative = path.relative_to(root)
        if WORKING_FILES.intersection(relative.parts) or (path.is_dir() and not path.is_symlink()):
            continue
        status = path.lstat()
        kept = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino)
        found[str(relative)] = str(path.readlink()) if path.is_symlink() else kept
    return found


def check_same(before: dict[str, tuple[int, ...] | str], after: dict[str, tuple[int, ...] | str]) -> None:
    assert before.items() - after.items() == set(), "what was there before stays as it was"
    assert after.keys() - before.keys() == set(), "nothing of the refused run takes effect"
