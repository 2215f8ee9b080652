"""The pages' fenced blocks: which are commands, what they need, and running them as they stand."""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELL, PYTHON = ("", "sh", "bash", "console", "shell"), "python"
FENCE = re.compile(r"^(?P<marker><!--[^\n]*-->\n+)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
MARKER = re.compile(r"<!-- (?:needs: (?P<needs>.+?)|(?P<shown>not commands)) -->")
FILE = re.compile(r"# (\w+\.py)\n")
ENDPOINT = "export ENDPOINT="  # the line that a test takes the place of


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: Its path below the project.
        line: Of its fence.
        needs: What it needs that a test cannot have; "" for nothing.
        is_shown: The page says that it is nothing to run.
    """

    page: str
    line: int
    language: str
    text: str
    needs: str
    is_shown: bool

    @property
    def commands(self) -> list[str]:
        """Of a shell block: one a command, without comments and with its continued lines joined."""
        lines = self.text.replace("\\\n", " ").splitlines()
        commands = (re.sub(r"(^|\s)#\s.*", "", line).strip().removeprefix("$ ") for line in lines)
        return [" ".join(command.split()) for command in commands if command]

    @property
    def is_to_run(self) -> bool:
        return self.language in (*SHELL, PYTHON) and not self.needs and not self.is_shown

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(path: Path) -> Iterator[Block]:
    text = path.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        marker = MARKER.search(found["marker"] or "")
        yield Block(
            page=str(path.relative_to(ROOT)),
            line=text.count("\n", 0, found.start("language")) + 1,
            language=found["language"],
            text=found["text"],
            needs=(marker["needs"] or "") if marker else "",
            is_shown=bool(marker and marker["shown"]),
        )


def blocks_to_run(page: str) -> list[Block]:
    """Those of a page that are not marked, without the one that asks a running stack for its endpoint."""
    return [block for block in blocks(ROOT / page) if block.is_to_run and ENDPOINT not in block.text]


def run(chosen: list[Block], directory: Path, environment: Mapping[str, str], timeout: float = 600) -> str:
    """Run blocks in `directory`, in one shell, as a reader would: scripts are saved first. Returns what is printed."""
    for block in chosen:
        if block.language == PYTHON:
            name = FILE.match(block.text)
            assert name, f"{block}: its first line must name the file to save it as, such as `# classify.py`"
            (directory / name[1]).write_text(block.text, encoding="utf-8")
    script = "".join(block.text for block in chosen if block.language in SHELL)
    done = subprocess.run(
        ["bash", "-eu", "-c", script],
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{chosen[0].page} must work as it stands:\n{done.stdout}\n{done.stderr}"
    return done.stdout
