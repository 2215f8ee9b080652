"""A copy of this checkout, with its own state and storage, and the real Pulumi to run in it."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

import stack as stack_tool

ROOT = Path(__file__).resolve().parents[1]
UP_SECONDS = 1800  # with the images to build, on a slow machine
# For `make` in a copy: set-up was done where the copy's environment comes from, and would be redone for the copy.
WITHOUT_SETUP = {"PYTHON": "true", "MNIST_DIR": ""}


@dataclass(frozen=True)
class Done:
    status: int
    output: str

    def __contains__(self, text: str) -> bool:
        return text in self.output


@dataclass
class Checkout:
    """Runs tools/stack.py and pulumi in a copy of the project."""

    root: Path
    stack: str = "local"
    environment: dict[str, str] = field(default_factory=dict)

    def configure(self, **settings: Any) -> None:
        """Replace the stack's settings (camelCase, without the namespace)."""
        path = self.root / f"Pulumi.{self.stack}.yaml"
        content = yaml.safe_load(path.read_text())
        kept = {
            key: content["config"][key] for key in ("mnist:platform", "kubernetes:context") if key in content["config"]
        }
        content["config"] = {**kept, **{f"mnist:{key}": value for key, value in settings.items()}}
        path.write_text(yaml.safe_dump(content))

    def start(self, command: str) -> "subprocess.Popen[str]":
        """Start a command of tools/stack.py in a process group of its own, as a terminal would."""
        return subprocess.Popen(
            [self.root / ".venv/bin/python", "tools/stack.py", command, self.stack],
            cwd=self.root,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str) -> Done:
        process = self.start(command)
        output, _ = process.communicate(timeout=UP_SECONDS)
        return Done(process.returncode, output)

    def tool(self, name: str, command: str) -> Done:
        """Run another of the tools on the stack, to its end; its standard output."""
        done = subprocess.run(
            [self.root / ".venv/bin/python", f"tools/{name}.py", command, self.stack],
            cwd=self.root,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=UP_SECONDS,
        )
        return Done(done.returncode, done.stdout + done.stderr)

    def pulumi(self, *arguments: str) -> Done:
        environment = stack_tool.environment(self.stack, self.root) | self.environment
        done = subprocess.run(
            ["pulumi", *arguments, "--stack", self.stack],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=UP_SECONDS,
        )
        return Done(done.returncode, done.stdout + done.stderr)

    def resources(self) -> dict[str, dict[str, Any]]:
        """The outputs of the stack's resources by name."""
        state = json.loads(self.pulumi("stack", "export").output)
        found = state["deployment"].get("resources", [])
        return {entry["urn"].rpartition("::")[2]: entry.get("outputs", {}) for entry in found}

    def runs(self) -> dict[str, str]:
        """Which execution of each stage the state holds."""
        return {name: outputs["run"] for name, outputs in self.resources().items() if "run" in outputs}

    @property
    def storage(self) -> Path:
        return self.root / "storage" / self.stack

    def events(self, stage: str) -> list[dict[str, Any]]:
        lines = (self.storage / "logs" / f"{stage}.log").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def results(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.storage / "results/latest/results.json").read_text())
        return content

    def processes(self) -> list[psutil.Process]:
        """Everything that runs out of this checkout."""
        found = []
        for process in psutil.process_iter(["cmdline", "pid"]):
            if any(str(self.root) in part for part in process.info["cmdline"] or []):
                found.append(process)
        return found

    def edit(self, path: str, change: Callable[[str], str]) -> None:
        file = self.root / path
        file.write_text(change(file.read_text()))

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "MNIST_DIR": "", **self.environment}


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain: {what}"
        time.sleep(0.1)


def interrupt(process: "subprocess.Popen[str]") -> None:
    """What Ctrl-C in a terminal does: SIGINT for the whole foreground process group."""
    os.killpg(process.pid, signal.SIGINT)


def make_checkout(root: Path, stack: str = "local") -> Checkout:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    for name in (".venv", ".tools"):
        (root / name).symlink_to(ROOT / name)
    return Checkout(root, stack)
