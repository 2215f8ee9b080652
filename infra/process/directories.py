"""The storage directory: made once, removed only if it is ours."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from process.errors import ProcessError

MARKER = ".made-by-mnist-triton"


def create_directory(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Make the directory, or take over one that is empty or bears our marker.

    Raises:
        ProcessError: it holds something else, or cannot be made or written.
    """
    path = Path(inputs["path"])
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not (path / MARKER).exists():
            if any(path.iterdir()):
                raise ProcessError(f"storage: {path} holds other files: choose another mnist:storageDir, or empty it")
            (path / MARKER).touch()
        if not os.access(path, os.W_OK):
            raise ProcessError(f"storage: {path} is read-only: make it writable or choose another mnist:storageDir")
    except OSError as error:
        raise ProcessError(
            f"storage: cannot use {path}: {(error.strerror or str(error)).lower()}; choose another mnist:storageDir"
        ) from None
    return dict(inputs)


def delete_directory(inputs: Mapping[str, Any]) -> None:
    """Remove the directory if it bears our marker; what was removed by hand is fine.

    Raises:
        ProcessError: it does not bear the marker, or cannot be removed.
    """
    path = Path(inputs["path"])
    if not path.exists():
        return
    if not (path / MARKER).exists():
        raise ProcessError(f"storage: {path} was not made by this stack ({MARKER} is missing): remove it by hand")
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise ProcessError(f"storage: cannot remove {path}: {(error.strerror or str(error)).lower()}") from None
