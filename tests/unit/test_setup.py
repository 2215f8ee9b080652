"""Set-up names what is missing and how to get it, and skips what is there."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import setup as setup_tool
from serving import runtime

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup_tool, "PULUMI_INSTALLER", "http://127.0.0.1:9")  # nothing listens on the discard port


@pytest.fixture
def empty_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(setup_tool, "TOOLS", tmp_path / "tools")
    monkeypatch.setattr(setup_tool, "CACHE", tmp_path / "cache")
    return tmp_path


@pytest.fixture
def wheelhouse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in place of every package index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for installer in ("UV", "PIP"):
        monkeypatch.setenv(f"{installer}_NO_INDEX", "1")
        monkeypatch.setenv(f"{installer}_FIND_LINKS", str(folder))
    return folder


def write_wheel(folder: Path, name: str) -> str:
    """The least that is a wheel; returns its sum."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    metadata = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", "RECORD": ""}
    metadata["WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", "")
        for file, content in metadata.items():
            wheel.writestr(f"{name}-1.0.dist-info/{file}", content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def tiny_venv(monkeypatch: pytest.MonkeyPatch, empty_tools: Path, wheelhouse: Path) -> Path:
    """An empty virtual environment, and a list of packages with the one package of the wheelhouse."""
    uv = Path(sys.executable).with_name("uv")
    venv = empty_tools / "venv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, venv], check=True)
    (venv / "bin" / "uv").symlink_to(uv)
    monkeypatch.setattr(setup_tool, "VENV", venv)
    monkeypatch.setattr(setup_tool, "PYTHON", venv / "bin" / "python")
    monkeypatch.setattr(setup_tool, "PACKAGES", empty_tools / "packages.txt")
    monkeypatch.setattr(setup_tool, "CUDA_TORCH", empty_tools / "torch.txt")
    monkeypatch.setattr(setup_tool, "install_torch_for_cpus", lambda: True)
    (empty_tools / "torch.txt").touch()
    (empty_tools / "packages.txt").write_text(f"tiny==1.0 --hash=sha256:{write_wheel(wheelhouse, 'tiny')}\n")
    return venv


def test_packages_with_the_listed_sums_are_installed(tiny_venv: Path) -> None:
    setup_tool.install_packages(dev=False)
    assert list(tiny_venv.glob("lib/*/site-packages/tiny/__init__.py")), "it is the wheel that was listed"


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        (f"tiny==1.0 --hash=sha256:{'0' * 64}", "Hash mismatch for `tiny==1.0`"),
        ("tiny==1.0", "all requirements must have a hash"),
        (f"tiny>=1.0 --hash=sha256:{'0' * 64}", "must have their versions"),
    ],
    ids=["another sum", "no sum", "no version"],
)
def test_packages_with_other_sums_or_none_are_refused(tiny_venv: Path, listed: str, reason: str) -> None:
    setup_tool.PACKAGES.write_text(f"{listed}\n")
    with pytest.raises(setup_tool.SetupError, match=reason):
        setup_tool.install_packages(dev=False)
    assert not list(tiny_venv.glob("lib/*/site-packages/tiny")), "nothing of it may be installed"
    assert not list(tiny_venv.glob(".*.installed")), "the next set-up must not take it for done"


def test_a_triton_with_another_sum_is_refused(
    monkeypatch: pytest.MonkeyPatch, empty_tools: Path, wheelhouse: Path
) -> None:
    write_wheel(wheelhouse, "nvidia_pytriton")
    monkeypatch.setattr(setup_tool, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(setup_tool, "TRITON_LIST", empty_tools / "server.txt")
    setup_tool.TRITON_LIST.write_text(f"nvidia-pytriton==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(setup_tool.SetupError, match="DO NOT MATCH THE HASHES"):
        setup_tool.install_triton()
    assert not (setup_tool.TOOLS / "triton").exists(), "nothing of it may be laid out"


@pytest.mark.usefixtures("no_network", "empty_tools")
def test_without_pulumi_its_installer_and_go_the_ways_to_get_it_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(setup_tool.SetupError) as failure:
        setup_tool.install_pulumi()
    assert "pulumi.com/docs/install" in str(failure.value), "the way to install Pulumi must be named"
    assert "Go" in str(failure.value), "the other way must be named"


@pytest.mark.usefixtures("no_network", "empty_tools")
def test_too_old_a_go_is_refused_with_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho go1.19.8\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(setup_tool.SetupError, match=r"Go 1\.24 or newer .* found go1\.19\.8"):
        setup_tool.install_pulumi()


def test_a_pulumi_on_path_is_used(monkeypatch: pytest.MonkeyPatch, empty_tools: Path) -> None:
    pulumi = empty_tools / "pulumi"
    pulumi.write_text("#!/bin/sh\n")
    pulumi.chmod(0o755)
    monkeypatch.setenv("PATH", str(empty_tools))
    setup_tool.install_pulumi()
    assert not setup_tool.TOOLS.exists(), "nothing may be installed where Pulumi is on PATH"


def test_an_unsupported_python_is_named_with_the_supported_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "PYTHONS", ((3, 8),))
    assert any("Python 3.8" in problem and runtime.VERSION in problem for problem in runtime.problems()), (
        "the supported versions and this one must be named"
    )


def test_a_missing_libpython_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "libpython", lambda: None)
    assert any(f"apt-get install libpython{runtime.VERSION}" in problem for problem in runtime.problems()), (
        "the package that has it must be named"
    )


def test_another_machine_is_told_where_the_slim_triton_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert "Linux on x86-64" in runtime.problems()[0], "what it needs must be named"


def test_a_second_setup_does_nothing() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/setup.py", "--dev"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", f"what is there must be skipped: {done.stdout}"
