"""A stage's fingerprint: what it would do differently if run again, as one hash."""

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path


def fingerprint(root: Path, code: Iterable[Path], arguments: Mapping[str, str], inputs: Iterable[Path] = ()) -> str:
    """Hash code, arguments and input files (by content; names relative to `root`, so that a checkout can move).

    Returns:
        The first 16 hexadecimal digits of a SHA-256.
    """
    content = {
        "code": {str(path.relative_to(root)): _sha256(path) for path in code},
        "arguments": dict(arguments),
        "inputs": {path.name: _sha256(path) for path in inputs},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def imported_files(script: Path, root: Path) -> list[Path]:
    """`script` and every file below `root` that it imports, directly or through others."""
    found: set[Path] = set()
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [file for name in imported_names(path) for file in _files_of(name, root)]
    return sorted(found)


def imported_names(path: Path) -> set[str]:
    """Modules that a file imports anywhere in it, dotted; what follows `from … import` may be one, or a name in one."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def _files_of(module: str, root: Path) -> list[Path]:
    """The file of a module below `root` and the __init__ files of its packages; nothing for other modules."""
    parts = module.split(".")
    candidates = [root.joinpath(*parts).with_suffix(".py")]
    candidates += [root.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts) + 1)]
    return [path for path in candidates if path.is_file()]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
