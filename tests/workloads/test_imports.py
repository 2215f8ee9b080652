"""What a stage loads: seconds of every run go into packages that it has no use for."""

import subprocess
import sys
from collections.abc import Callable

from mnist.storage import Storage
from tests.storages import QUICK
from tests.support import WORKLOADS

Copy = Callable[[Storage], Storage]
COMPILER = {"torch._dynamo", "torch._inductor", "sympy"}  # PyTorch's: 5 s


def loaded(script: str, *arguments: object) -> set[str]:
    """Run a script to its end; every module it imported."""
    command = [sys.executable, "-X", "importtime", str(WORKLOADS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{script} must succeed: {done.stdout}{done.stderr[-500:]}"
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def test_a_training_loads_pytorch_without_its_compiler(small_storage: Storage, copy_of: Copy) -> None:
    modules = loaded("train.py", "--storage", copy_of(small_storage).root, *QUICK)
    assert "torch" in modules, "the check sees what is imported"
    assert not modules & COMPILER, f"nothing is compiled: {modules & COMPILER}"


def test_an_export_loads_pytorch_without_its_compiler(trained_storage: Storage, copy_of: Copy) -> None:
    modules = loaded("export.py", "--storage", copy_of(trained_storage).root, "--min-accuracy", 0.1)
    assert "torch" in modules, "the check sees what is imported"
    assert not modules & COMPILER, f"nothing is compiled: {modules & COMPILER}"


def test_client_and_report_load_nothing_that_trains() -> None:
    for script in ("client.py", "report.py"):
        modules = loaded(script, "--help")
        assert "numpy" in modules, "the check sees what is imported"
        heavy = modules & {"torch", "onnx", "onnxruntime", "pulumi"}
        assert not heavy, f"{script} runs where these are not installed: {heavy}"
