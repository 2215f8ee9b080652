"""What is installed is listed, with the sum of every wheel, and nothing is installed past the lists."""

import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import lock_packages
import setup as setup_tool
from lock_packages import DOCKER, MLSERVER, NEEDS, ROOT, SINGLE, TORCH, Locked, entries
from pipeline.fingerprint import imported_files, imported_names

IMAGES = [DOCKER / image / "requirements.txt" for image in NEEDS]
CUDA = DOCKER / "tr-ex-job" / "torch-cuda.txt"
LOCAL = [*(Path(f"constraints{of}.txt") for of in ("", "-dev", "-bench")), CUDA]
LISTS = [*LOCAL, *IMAGES, *SINGLE, MLSERVER]
PINNED = re.compile(r"^[a-z0-9-]+==[\w.!+]+( ; .+)?$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")


def locked(path: Path) -> Locked:
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    return entries([line for line in lines if not line.startswith("#")])


def versions(path: Path) -> set[str]:
    """name==version, without the condition under which it is installed."""
    return {line.partition(" ")[0] for line in locked(path)}


@pytest.mark.parametrize("path", LISTS, ids=str)
def test_every_package_is_pinned_and_has_sums_and_no_list_names_a_server(path: Path) -> None:
    assert locked(path), "an empty list would install nothing"
    for line, entry in locked(path).items():
        assert PINNED.match(line), f"one version, and no option such as --index-url: {line}"
        hashes = entry.splitlines()[1:]
        assert hashes and all(HASH.match(one) for one in hashes), f"{line} must have its sums and nothing else"
    assert "://" not in (ROOT / path).read_text(encoding="utf-8"), "where packages come from is the user's to say"


@pytest.mark.parametrize("path", [path for path in (*LOCAL, *IMAGES) if path != CUDA], ids=str)
def test_pytorch_is_in_its_own_list_alone(path: Path) -> None:
    """The same version for CPUs is another file, with another sum."""
    assert not [line for line in locked(path) if line.startswith(TORCH)], "it could not be installed for CPUs"


def test_the_lists_hold_what_the_requirements_ask_for() -> None:
    listed = {version for path in LOCAL for version in versions(path)}
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-bench.txt"):
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            wanted = re.sub(r"\[.*\]", "", line.partition("#")[0].strip()).lower()
            assert not wanted or any(version == wanted or version.startswith(f"{wanted}==") for version in listed), (
                f"{line} of {name} is not in the lists: run `make constraints`"
            )


@pytest.mark.parametrize("path", IMAGES, ids=str)
def test_images_hold_the_versions_that_the_tests_ran_with(path: Path) -> None:
    assert versions(path) <= {version for local in LOCAL for version in versions(local)}, "run `make constraints`"


WORKLOADS = ROOT / "workloads"
SCRIPTS = {
    "tr-ex-job": ("prepare.py", "train.py", "export.py"),
    "client-job": ("client.py", "report.py"),
    "triton": ("serving/launch.py", "serving/onnxruntime/model.py"),
}
FROM_TRITON = {"triton_python_backend_utils"}  # comes with the server


def packages_of(script: str) -> set[str]:
    """Distributions that a script and all it imports ask for, also those imported only where they are used."""
    modules = {
        name.partition(".")[0]
        for file in imported_files(WORKLOADS / script, WORKLOADS)
        for name in imported_names(file)
    }
    ours = {path.stem for path in WORKLOADS.iterdir()}
    installed = packages_distributions()
    return {
        installed[module][0].lower().replace("_", "-")
        for module in modules - sys.stdlib_module_names - ours - FROM_TRITON
    }


@pytest.mark.parametrize(("image", "script"), [(image, script) for image in NEEDS for script in SCRIPTS[image]])
def test_an_image_has_what_its_scripts_import(image: str, script: str) -> None:
    text = (ROOT / DOCKER / image / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(rf"^COPY .*\b({script}|{script.partition('/')[0]}) ", text, re.MULTILINE), f"{script} is in it"
    lists = [DOCKER / image / "requirements.txt", *([CUDA] if image == "tr-ex-job" else [])]
    present = {version.partition("==")[0] for path in lists for version in versions(path)}
    missing = packages_of(script) - present
    assert not missing, f"{script} would fail there: add to NEEDS in tools/lock_packages.py: {missing}"


@pytest.mark.parametrize("image", NEEDS)
def test_a_dockerfile_installs_from_lists_alone(image: str) -> None:
    text = (ROOT / DOCKER / image / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = [part for part in re.split(r"&&|;|\bRUN\b|\bthen\b", text) if re.search(r"pip (install|download)", part)]
    assert len(commands) >= 2, "the installer, and the packages"
    for command in commands:
        assert "--no-deps" in command, f"{command} installs what no list names"
        hashed = "--require-hashes" in command or re.search(r"\$install --require-hashes", text)
        assert hashed, f"{command} takes any wheel"
    unchecked = [line for line in text.splitlines() if "--torch-backend" in line]
    assert len(unchecked) == (image == "tr-ex-job"), "PyTorch for CPUs is the only one without sums, in one image"


def test_setup_asks_for_sums_and_builds_nothing(tmp_path: Path) -> None:
    arguments = setup_tool.from_lists(tmp_path / "a.txt", tmp_path / "b.txt")
    assert "--require-hashes" in arguments, "a package without a sum must be refused"
    assert {"--no-deps", "--only-binary", ":all:"} <= set(arguments), "what is built runs code that has no sum"
    assert arguments[-2:] == [f"--requirement={tmp_path}/a.txt", f"--requirement={tmp_path}/b.txt"]


def test_what_uv_prints_becomes_a_list() -> None:
    printed = [
        "numpy==2.4.6 \\",
        "    --hash=sha256:aa \\",
        "    --hash=sha256:bb",
        "torch==2.15.0 ; sys_platform == 'linux' \\",
    ]
    torch, rest = lock_packages.parted(entries([*printed, "    --hash=sha256:cc"]))
    assert rest == {"numpy==2.4.6": "\n".join(printed[:3])}, "a package with its sums"
    assert list(torch) == ["torch==2.15.0 ; sys_platform == 'linux'"], "PyTorch apart, its condition kept"
