"""The slim Triton: the server that the nvidia-pytriton wheel carries, laid out as tritonserver expects its parts.

python workloads/serving/runtime.py WHEEL DIRECTORY     lay the parts out (standard library only)

DIRECTORY/bin/tritonserver
DIRECTORY/lib/*.so                              its libraries
DIRECTORY/backends/python/                      the Python backend and the stub of this Python
DIRECTORY/backends/onnxruntime/model.py         ours (a link, so that a change needs no new layout)
"""

import ctypes
import os
import platform
import shutil
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

MIN_GLIBC = (2, 35)
PYTHONS = ((3, 11), (3, 12), (3, 13))  # the wheel has stubs for these
BUNDLED_PYTHON = "3.13"  # the only one whose stub wants the wheel's own libpython
WHEEL_ROOT = "pytriton/tritonserver"
WHEEL_LIBRARIES = "nvidia_pytriton.libs"
BACKEND = Path(__file__).resolve().parent / "onnxruntime" / "model.py"
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def problems() -> list[str]:
    """What this machine lacks for the slim Triton, each with what to do about it."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return [
            f"the slim Triton needs Linux on x86-64, this is {platform.system()} on {platform.machine()}: "
            "use WSL2 or a Linux machine, or stack dev on a cluster"
        ]
    found = []
    libc, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    if libc != "glibc" or tuple(map(int, version.split("."))) < MIN_GLIBC:
        found.append(
            f"the slim Triton needs glibc 2.35 or newer, found {libc} {version}: use Debian 12 or Ubuntu 22.04"
        )
    if sys.version_info[:2] not in PYTHONS:
        supported = ", ".join(f"{major}.{minor}" for major, minor in PYTHONS)
        found.append(f"the slim Triton needs one of Python {supported}, this is {VERSION}: set PYTHON=python3.13")
    elif libpython() is None:
        found.append(
            f"libpython{VERSION}.so.1.0 is missing, Triton's Python backend needs it: "
            f"apt-get install libpython{VERSION} (with pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install)"
        )
    return found


def libpython() -> Path | None:
    """The directory of this Python's shared library; Path() when the system's linker finds it by itself."""
    name = f"libpython{VERSION}.so.1.0"
    directory = Path(sysconfig.get_config_var("LIBDIR") or "")
    if (directory / name).exists():
        return directory
    try:
        ctypes.CDLL(name)
    except OSError:
        return None
    return Path()


def lay_out(wheel: Path, directory: Path) -> None:
    """Unpack what serving needs of the wheel into `directory`; it appears whole or not at all."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".triton-", dir=directory.parent))
    with zipfile.ZipFile(wheel) as archive:
        wanted = [name for name in archive.namelist() if name.startswith((f"{WHEEL_ROOT}/", f"{WHEEL_LIBRARIES}/"))]
        archive.extractall(staging, wanted)
    root = staging / WHEEL_ROOT
    (staging / WHEEL_LIBRARIES).rename(staging / "lib")
    (root / "bin").rename(staging / "bin")
    (root / "backends").rename(staging / "backends")
    stub = root / "python_backend_stubs" / VERSION / "triton_python_backend_stub"
    shutil.move(stub, staging / "backends" / "python" / stub.name)
    if VERSION != BUNDLED_PYTHON:
        for library in (staging / "lib").glob("libpython3-*"):
            library.unlink()  # 32 MB
    for executable in (staging / "bin" / "tritonserver", staging / "backends" / "python" / stub.name):
        executable.chmod(0o755)
    shutil.rmtree(staging / "pytriton")
    (staging / "backends" / "onnxruntime").mkdir()
    (staging / "backends" / "onnxruntime" / "model.py").symlink_to(BACKEND)
    staging.chmod(0o755)
    shutil.rmtree(directory, ignore_errors=True)
    staging.rename(directory)


def environment(directory: Path) -> dict[str, str]:
    """What tritonserver needs: its libraries and libpython, and this Python first on PATH for the stub."""
    libraries = [directory / "lib", *(path for path in (libpython(),) if path is not None and path != Path())]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]), Path(sys.argv[2]))
