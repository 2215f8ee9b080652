"""Set-up names what is missing and how to get it, and skips what is there."""

import subprocess
import sys
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
