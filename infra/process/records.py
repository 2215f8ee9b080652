"""What is known of each resource between runs: one small JSON file, written whole or not at all."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from process.errors import ProcessError

FOLDER = ".process"


def record_path(directory: str, name: str) -> Path:
    return Path(directory) / FOLDER / f"{name}.json"


def read(directory: str, name: str) -> dict[str, Any] | None:
    """The resource's record; None if it never ran here, or was cut off while writing."""
    try:
        content = json.loads(record_path(directory, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # never ran here, or was cut off while writing: it counts as not done
    return content if isinstance(content, dict) else None


def write(directory: str, name: str, content: Mapping[str, Any]) -> None:
    """Put the record in the place of the one before, whole or not at all.

    Raises:
        ProcessError: the directory cannot be written.
    """
    path = record_path(directory, name)
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content), encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise ProcessError(f"{name}: cannot write {path}: {(error.strerror or str(error)).lower()}") from None


def remove(directory: str, name: str) -> None:
    """Forget what ran; no record is fine.

    Raises:
        ProcessError: it is there and cannot be removed.
    """
    try:
        record_path(directory, name).unlink(missing_ok=True)
    except OSError as error:
        raise ProcessError(f"{name}: cannot remove its record: {error}") from None
