"""Writes appear whole or not at all, and what the file system refuses is said in one line."""

import errno
import os
from datetime import UTC, datetime, tzinfo
from pathlib import Path

import pytest

from mnist import storage
from mnist.errors import StorageError
from mnist.storage import explained, new_run, publish_directory, replace_link, require_space, write_atomic
from tests.support import make_read_only, small_disk


def test_write_atomic_makes_directories_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, "old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new", "the second write wins"
    assert list(path.parent.iterdir()) == [path], "no temporary file stays"
    assert path.stat().st_mode & 0o777 == 0o644, "other users' workloads can read it"


def test_a_full_disk_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        path = disk / "file"
        write_atomic(path, b"old" * 1000)
        with pytest.raises(StorageError, match="the disk is full: free some space") as caught:
            write_atomic(path, os.urandom(5 << 20))
        assert str(path) in str(caught.value), "says which file"
        assert path.read_bytes() == b"old" * 1000, "the earlier result is intact"
        assert list(disk.iterdir()) == [path], "what was half written does not keep the disk full"


def test_a_read_only_storage_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        write_atomic(disk / "file", b"old")
        (disk / "staging").mkdir()
        make_read_only(disk)
        for attempt in (
            lambda: write_atomic(disk / "file", b"new"),
            lambda: new_run(disk),
            lambda: replace_link(disk / "link", disk / "file"),
            lambda: publish_directory(disk / "staging", disk / "1"),
        ):
            with pytest.raises(StorageError, match=f"{disk}.*the file system is read-only: make it writable"):
                attempt()
        assert (disk / "file").read_bytes() == b"old", "the earlier result is intact"


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def interrupt(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old", "the name only ever holds a whole file"
    assert list(tmp_path.iterdir()) == [path], "no temporary file stays"


def test_a_file_in_a_directorys_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way", encoding="utf-8")
    with pytest.raises(StorageError, match="a file stands where a directory is needed"):
        write_atomic(tmp_path / "data" / "mnist" / "file", b"")


def test_a_directory_in_a_files_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(StorageError, match="a directory stands where a file is needed"):
        write_atomic(tmp_path / "file", b"")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"], "no temporary file stays"


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EPERM, "not permitted"),
        (errno.EIO, "input/output error"),
    ],
)
def test_an_error_of_the_file_system_is_explained(number: int, advice: str) -> None:
    with pytest.raises(StorageError) as caught, explained(Path("/storage/x"), "read"):
        raise OSError(number, os.strerror(number))
    assert str(caught.value).startswith("cannot read /storage/x: "), "the action and the place"
    assert advice in str(caught.value), "the reason"


def test_links_are_relative_and_replaced_at_once(tmp_path: Path) -> None:
    for run in ("one", "two"):
        (tmp_path / "runs" / run).mkdir(parents=True)
        replace_link(tmp_path / "best", tmp_path / "runs" / run)
    assert os.readlink(tmp_path / "best") == os.path.join("runs", "two"), "the storage can be mounted elsewhere"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "runs"], "no temporary link stays"


def test_a_link_left_by_a_killed_process_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / f".best.{os.getpid()}").symlink_to("nowhere")
    replace_link(tmp_path / "best", tmp_path / "target")
    assert os.readlink(tmp_path / "best") == "target", "process numbers come again"


class StoppedClock(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "StoppedClock":
        return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)


def test_a_run_never_gets_the_name_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "datetime", StoppedClock)
    names = [new_run(tmp_path).name for _ in range(3)]
    assert names == ["20260102-030405", "20260102-030405-2", "20260102-030405-3"], "also when the clock stands still"


def test_a_run_is_named_by_the_time_in_utc(tmp_path: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    named = datetime.strptime(new_run(tmp_path).name, "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    assert before <= named <= datetime.now(UTC), "names sort by time"


def test_a_run_beside_too_many_of_its_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "datetime", StoppedClock)
    for attempt in range(1, 1000):
        (tmp_path / ("20260102-030405" + (f"-{attempt}" if attempt > 1 else ""))).mkdir()
    with pytest.raises(StorageError, match="999 runs"):
        new_run(tmp_path)


def test_a_directory_is_published_whole(tmp_path: Path) -> None:
    staging = tmp_path / ".staging"
    staging.mkdir()
    (staging / "model.onnx").write_bytes(b"model")
    publish_directory(staging, tmp_path / "1")
    assert (tmp_path / "1" / "model.onnx").read_bytes() == b"model", "with all it holds"
    assert not staging.exists(), "it was renamed, not copied"


def test_a_published_directory_is_never_replaced(tmp_path: Path) -> None:
    for name in (".staging", "1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_text(name, encoding="utf-8")
    with pytest.raises(StorageError):
        publish_directory(tmp_path / ".staging", tmp_path / "1")
    assert (tmp_path / "1" / "model.onnx").read_text(encoding="utf-8") == "1", "what is served stays"


def test_too_little_space_is_said_before_the_work(tmp_path: Path) -> None:
    require_space(tmp_path, 1)
    with pytest.raises(StorageError, match=r"MiB free, \d+ MiB are needed: free some space"):
        require_space(tmp_path, 1 << 60)
