"""The storage directory: where everything lies, and writes that appear whole or not at all."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mnist.errors import StorageError

LATEST = "latest"
BEST_MODEL = "best_model.pth"
CHECKPOINT = "checkpoint.pth"
RESULTS_FILE = "results.json"

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space and run again",
    errno.EDQUOT: "the disk quota is used up: free some space and run again",
    errno.EROFS: "the file system is read-only: make it writable or choose another storage",
    errno.EACCES: "permission denied: make it writable for this user or choose another storage",
    errno.EPERM: "not permitted: make it writable for this user or choose another storage",
    errno.EEXIST: "a file stands where a directory is needed: move it away",
    errno.ENOTDIR: "a file stands where a directory is needed: move it away",
    errno.EISDIR: "a directory stands where a file is needed: move it away",
}


@dataclass(frozen=True)
class Storage:
    """The paths below the storage's root: the claim's mount point in a cluster, a directory on one machine."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data" / "mnist"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def best_model(self) -> Path:
        return self.checkpoints / BEST_MODEL

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def latest_results(self) -> Path:
        return self.results / LATEST


@contextlib.contextmanager
def explained(path: Path, action: str = "write") -> Iterator[None]:
    """Turn an OSError into a `StorageError` that names the action, the path and the way out.

    Raises:
        StorageError: what was done inside raised an OSError.
    """
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(
            error.errno or 0, f"{(error.strerror or str(error)).lower()}: check the disk, then run again"
        )
        if action in ("read", "open", "inspect"):
            advice = advice.replace("writable", "readable")
        raise StorageError(f"cannot {action} {path}: {advice}") from error


def make_directory(path: Path) -> Path:
    """Make it, and those above it, if it is not there; returns it.

    Raises:
        StorageError: it cannot be made, or a file stands in its place.
    """
    with explained(path, "create"):
        path.mkdir(parents=True, exist_ok=True)
    return path


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` so that `path` is either the old file or the whole new one, also after a power cut.

    Raises:
        StorageError: the directory cannot be written or the disk is full; the old file is then untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    make_directory(path.parent)
    with explained(path):
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # mkstemp makes it 0600; other workloads read it under other uids
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_directory(path.parent)


def replace_link(link: Path, target: Path) -> None:
    """Point the symbolic `link` at `target` (relative, so that the storage can be mounted anywhere), atomically.

    Raises:
        StorageError: its directory cannot be written.
    """
    relative = os.path.relpath(target, link.parent)
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    with explained(link):
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        temporary.symlink_to(relative)
        os.replace(temporary, link)
        _sync_directory(link.parent)


def publish_directory(staging: Path, final: Path) -> None:
    """Rename a finished `staging` directory to `final`: readers see it whole or not at all.

    Raises:
        StorageError: it cannot be renamed.
    """
    with explained(final):
        os.rename(staging, final)
        _sync_directory(final.parent)


def new_run(parent: Path) -> Path:
    """Create a directory named by the time (UTC); never an existing one, whatever the clock says.

    Raises:
        StorageError: it cannot be created.
    """
    make_directory(parent)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for attempt in range(1, 1000):
        candidate = parent / (stamp if attempt == 1 else f"{stamp}-{attempt}")
        with explained(candidate, "create"):
            try:
                candidate.mkdir()
            except FileExistsError:
                continue
            return candidate
    raise StorageError(f"cannot create a run below {parent}: 999 runs are named {stamp} already")


def require_space(directory: Path, needed: int) -> None:
    """Fail before the work, not in its middle, when the disk cannot hold its result of `needed` bytes.

    Raises:
        StorageError: fewer are free.
    """
    with explained(directory, "inspect"):
        free = shutil.disk_usage(directory).free
    if free < needed:
        raise StorageError(f"{directory} has {free >> 20} MiB free, {needed >> 20} MiB are needed: free some space")


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
