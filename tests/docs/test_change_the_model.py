"""The page on changing the model, applied to a copy of the stages' code as it says."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

from mnist.repository import ModelRepository
from tests.docs.pages import PYTHON, blocks_to_run
from tests.support import ROOT

PAGE = "docs/how-to/change-the-model.md"
ROW = re.compile(r"^\| `(.+?)` \| `(.+?)` \| `(.+?)` \|$", re.MULTILINE)
NETWORK, SIZE = (
    rows for section in (ROOT / PAGE).read_text(encoding="utf-8").split("\n## ") if (rows := ROW.findall(section))
)
# A pattern a class, and noise: what a small network learns in a few steps.
MAKE_DATA = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, "workloads")
from mnist.data import CLASSES, FILES, SIDE, write_images, write_labels
random = np.random.default_rng(1)
patterns = random.integers(0, 256, (CLASSES, SIDE, SIDE))
for split, count in (("train", 480), ("t10k", 96)):
    labels = np.arange(count, dtype=np.uint8) % CLASSES
    noisy = patterns[labels] + random.normal(0, 30, (count, SIDE, SIDE))
    write_images(Path("data") / FILES[split, "images"], noisy.clip(0, 255).astype(np.uint8))
    write_labels(Path("data") / FILES[split, "labels"], labels)
"""


def put_network(directory: Path) -> None:
    """The page's function in place of the one of its name."""
    [network] = [block for block in blocks_to_run(PAGE) if block.language == PYTHON]
    path = directory / "workloads/mnist/model.py"
    source = path.read_text(encoding="utf-8")
    [old] = [node for node in ast.parse(source).body if getattr(node, "name", "") == "build_model"]
    lines = source.splitlines(keepends=True)
    path.write_text("".join([*lines[: old.lineno - 1], network.text, *lines[old.end_lineno :]]), encoding="utf-8")


def apply(rows: list[tuple[str, str, str]], directory: Path) -> None:
    for file, instead_of, write in rows:
        path = directory / file
        source = path.read_text(encoding="utf-8")
        assert source.count(instead_of) == 1, f"{PAGE} names `{instead_of}`, which must stand once in {file}"
        path.write_text(source.replace(instead_of, write), encoding="utf-8")


def python(directory: Path, *arguments: str) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{arguments[0]}: {done.stdout}{done.stderr}"
    return done.stdout


def test_another_model_is_trained_and_exported_as_the_page_says(tmp_path: Path) -> None:
    """Also for images of another size and more classes, which the page has after it."""
    shutil.copytree(ROOT / "workloads", tmp_path / "workloads", ignore=shutil.ignore_patterns("__pycache__"))
    put_network(tmp_path)
    apply([*NETWORK, *SIZE], tmp_path)
    python(tmp_path, "-c", MAKE_DATA)
    python(tmp_path, "workloads/prepare.py", "--storage=storage", "--dataset=custom", "--dataset-dir=data")
    python(tmp_path, "workloads/train.py", "--storage=storage", "--epochs=3", "--batch-size=32", "--threads=1")
    printed = python(tmp_path, "workloads/export.py", "--storage=storage", "--min-accuracy=0.5", "--serving-cpus=1")
    assert "agrees with PyTorch on all 96 test images" in printed, printed
    repository = ModelRepository(tmp_path / "storage/models", "resnet18_mnist")
    assert repository.metadata(1).bytes < 1_000_000, "it is the small network, not ResNet-18"
    config = repository.config_path.read_text(encoding="utf-8")
    assert "dims: [ 1, 32, 32 ]" in config and "dims: [ 12 ]" in config, "of that size, with that many classes"
