"""A stage's fingerprint changes with what the stage does, and with nothing else."""

import shutil
from pathlib import Path

import pytest

from pipeline.fingerprint import fingerprint, imported_files
from pipeline.stages import STAGES
from tests.support import WORKLOADS
from tests.unit.test_settings import settings


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    shutil.copytree(WORKLOADS, root / "workloads", ignore=shutil.ignore_patterns("__pycache__"))
    return root


def fingerprints(root: Path) -> dict[str, str]:
    """Of every stage, as the targets compute it."""
    workloads = root / "workloads"
    return {
        stage.name: fingerprint(
            root,
            [*imported_files(workloads / stage.script, workloads), *(workloads / name for name in stage.other_code)],
            stage.arguments(settings()),
        )
        for stage in STAGES
    }


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("client.py", {"client"}),
        ("train.py", {"train"}),
        ("mnist/model.py", {"train", "export"}),
        ("mnist/sources.py", {"prepare-data"}),
        ("mnist/onnx_model.py", {"export"}),
        ("reporting/report.html.j2", {"report"}),
        ("reporting/charts.py", {"report"}),
        ("serving/onnxruntime/model.py", {"triton"}),
        ("mnist/storage.py", {"prepare-data", "train", "export", "triton", "client", "report"}),
        ("mnist/__init__.py", {"prepare-data", "train", "export", "triton", "client", "report"}),
    ],
)
def test_a_change_of_code_changes_the_stages_that_use_it(checkout: Path, file: str, changed: set[str]) -> None:
    before = fingerprints(checkout)
    with (checkout / "workloads" / file).open("a", encoding="utf-8") as code:
        code.write("\n")
    after = fingerprints(checkout)
    assert {name for name in before if before[name] != after[name]} == changed, "imports are followed, no others"


def test_moving_the_checkout_changes_nothing(checkout: Path, tmp_path: Path) -> None:
    before = fingerprints(checkout)
    assert fingerprints(checkout.rename(tmp_path / "moved")) == before, "names count from the root"


def test_arguments_and_input_files_change_it(tmp_path: Path) -> None:
    code, data = tmp_path / "stage.py", tmp_path / "data.gz"
    code.write_text("pass\n", encoding="utf-8")
    data.write_bytes(b"one")
    plain = fingerprint(tmp_path, [code], {"epochs": "1"})
    with_data = fingerprint(tmp_path, [code], {"epochs": "1"}, [data])
    assert fingerprint(tmp_path, [code], {"epochs": "2"}) != plain, "arguments count"
    assert with_data != plain, "input files count"
    data.write_bytes(b"two")
    assert fingerprint(tmp_path, [code], {"epochs": "1"}, [data]) != with_data, "by content"
    data.write_bytes(b"one")
    data.touch()
    assert fingerprint(tmp_path, [code], {"epochs": "1"}, [data]) == with_data, "a new time stamp is no change"


def test_imports_are_followed_through_packages_and_functions(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    for name, text in {
        "script.py": "import os\nfrom package import one\n",
        "package/__init__.py": "",
        "package/one.py": "def late():\n    from package.two import thing\n",
        "package/two.py": "import script\n",
        "package/unused.py": "",
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    found = {str(path.relative_to(tmp_path)) for path in imported_files(tmp_path / "script.py", tmp_path)}
    assert found == {"script.py", "package/__init__.py", "package/one.py", "package/two.py"}, "circles end, too"
