"""One run at a time on a storage: a lock that ends with its owner, however that one ends."""

import contextlib
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from mnist.errors import StorageError
from mnist.storage import explained, make_directory

LOCK_FILE = ".lock"


@contextlib.contextmanager
def exclusive(root: Path, stage: str) -> Iterator[None]:
    """Hold the storage for one stage. The kernel frees a lock (flock) when its owner is gone, so none stays behind.

    Raises:
        StorageError: another stage holds it (says which, where and since when), or it cannot be locked.
    """
    path = make_directory(root) / LOCK_FILE
    with explained(path, "open"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _lock(descriptor, root)
        owner = {"stage": stage, "pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
        with contextlib.suppress(OSError):  # a full disk: the lock holds, only its owner stays unnamed
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, root: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StorageError(f"{root} is in use by {_owner(descriptor)}: wait until it has ended, or stop it") from None
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO).lower()
        raise StorageError(f"cannot lock {root} ({reason}): choose a storage that has file locks") from None


def _owner(descriptor: int) -> str:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
        return f"stage {owner['stage']} (process {owner['pid']} on {owner['host']}, since {owner['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
