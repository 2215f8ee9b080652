"""The diagram of the storage shows who reads and writes what: each job is run, and what it opens is taken down."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.storages import write_subset
from tests.support import ROOT
from tests.unit.drawing import read
from tests.workloads.triton import running_triton

FOLDERS = ("data", "checkpoints", "models", "results", "logs")
# Runs a stage's main; afterwards the storage's folders that it opened or renamed something in, and how, are printed.
WATCHED = """
import importlib, json, os, sys
root, module, *arguments = sys.argv[1:]
sys.path[:0] = ["workloads"]
used = set()
def watch(event, arguments):
    if event not in ("open", "os.rename", "os.mkdir", "os.symlink"):
        return
    for path in arguments[:1] if event in ("open", "os.mkdir") else arguments[:2]:
        name = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
        if name.startswith(root + os.sep):
            reads = event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            used.add((os.path.relpath(name, root).split(os.sep)[0], "reads" if reads else "writes"))
sys.addaudithook(watch)
status = importlib.import_module(module).main([f"--storage={root}", *arguments])
print(json.dumps(sorted(used)), file=sys.stderr)
sys.exit(status)
"""


def use(root: Path, module: str, *arguments: str) -> set[tuple[str, str]]:
    """What the stage does to which folder; its log, which every job writes, is left out."""
    command = [sys.executable, "-c", WATCHED, str(root), module, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{module}: {done.stdout}{done.stderr}"
    found = {(folder, what) for folder, what in json.loads(done.stderr.splitlines()[-1]) if folder in FOLDERS}
    assert ("logs", "writes") in found, "so that what is seen is what is done"
    return found - {("logs", "writes")}


@pytest.fixture(scope="module")
def used(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[tuple[str, str]]]:
    """By job, on a hundred and sixty images."""
    root = tmp_path_factory.mktemp("storage")
    dataset = write_subset(originals, tmp_path_factory.mktemp("dataset"), 160, 60)
    found = {
        "prepare-data": use(root, "prepare", "--dataset=custom", f"--dataset-dir={dataset}"),
        "train": use(root, "train", "--epochs=1", "--batch-size=32", "--threads=1"),
        "export": use(root, "export", "--min-accuracy=0", "--serving-cpus=1"),
    }
    with running_triton(root, root.parent / "triton.log") as triton:
        found["client"] = use(root, "client", f"--endpoint={triton.endpoint}", "--min-accuracy=0")
    return {**found, "report": use(root, "report")}


def test_the_storage_is_used_as_it_is_drawn(used: dict[str, set[tuple[str, str]]]) -> None:
    arrows = read((ROOT / "docs/architecture/storage.mmd").read_text(encoding="utf-8")).arrows
    for job, found in used.items():
        written = {folder for folder, what in found if what == "writes"}
        assert {folder for folder in FOLDERS if (job, folder) in arrows} == written, f"{job} writes these"
        drawn = {folder for folder in FOLDERS if (folder, job) in arrows}
        assert drawn - written == {folder for folder, _ in found} - written, f"{job} reads these, beside its own"
