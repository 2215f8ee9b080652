"""Set up everything the project needs, inside the checkout: packages, the Pulumi CLI, Triton's parts.

    python3 tools/setup.py [--dev] [--bench] [--play]

What is there and right is skipped. Uses the standard library only: it runs before anything is installed. Packages come
from the lists that tools/lock_packages.py writes, and only as the wheels whose SHA-256 stands there.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workloads"))

from serving import runtime  # noqa: E402

VENV, TOOLS, CACHE = ROOT / ".venv", ROOT / ".tools", ROOT / ".cache"
PYTHON = VENV / "bin" / "python"
PULUMI_VERSION = "3.200.0"
PULUMI_INSTALLER = "https://get.pulumi.com"
PULUMI_HELP = "https://www.pulumi.com/docs/install"
PULUMI_PACKAGE = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
LANGUAGE_HOST_MODULE = "github.com/pulumi/pulumi/sdk/v3"
LANGUAGE_HOST_PACKAGE = f"{LANGUAGE_HOST_MODULE}/python/cmd/pulumi-language-python"
MIN_GO = (1, 24)
STAMP = ".complete"
DOCKER = ROOT / "workloads" / "docker"
UV_LIST, TRITON_LIST = DOCKER / "uv.txt", DOCKER / "triton" / "server.txt"
PACKAGES, DEV_PACKAGES, BENCH_PACKAGES = (ROOT / f"constraints{of}.txt" for of in ("", "-dev", "-bench"))
BENCH_VENVS, BENCH_LISTS = ROOT / ".venv-bench", ROOT / "bench" / "environments"
BENCH_GLIBC = {"perf-analyzer": (2, 38)}  # where its wheel runs
PLAY_VENV, PLAY_PACKAGES = ROOT / ".venv-play", ROOT / "constraints-play.txt"
CUDA_TORCH = DOCKER / "tr-ex-job" / "torch-cuda.txt"
WHEELS = ("--no-deps", "--only-binary", ":all:")  # nothing that was not asked for, nothing that is built here


class SetupError(Exception):
    """One line: what is missing and the command that mends it."""


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--dev", action="store_true", help="also what the tests need")
    options.add_argument("--bench", action="store_true", help="also what the benchmarks need")
    options.add_argument("--play", action="store_true", help="also what the page to draw on needs")
    arguments = options.parse_args()
    try:
        check_machine()
        make_venv()
        with ThreadPoolExecutor() as pool:  # downloads beside a build: neither waits for the other
            jobs = [
                pool.submit(install_packages, arguments.dev, arguments.bench),
                pool.submit(install_pulumi),
                pool.submit(install_triton),
            ]
            if arguments.play:
                jobs.append(pool.submit(install_apart, PLAY_VENV, PLAY_PACKAGES, "20 s, 100 MB"))
            for job in jobs:
                job.result()
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    shutil.rmtree(CACHE / "downloads", ignore_errors=True)
    return 0


def check_machine() -> None:
    for problem in runtime.problems():
        raise SetupError(problem)


def make_venv() -> None:
    if (PYTHON.with_name("uv")).exists():
        return
    with step("virtual environment .venv", "10 s"):
        try:
            run([sys.executable, "-m", "venv", "--clear", str(VENV)])
        except SetupError:
            shutil.rmtree(VENV, ignore_errors=True)
            package = f"python{runtime.VERSION}-venv"
            raise SetupError(f"this Python cannot make virtual environments: apt-get install {package}") from None
        run([str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *from_lists(UV_LIST)])


def install_packages(dev: bool, bench: bool = False) -> None:
    wanted = {"requirements.txt": (PACKAGES, CUDA_TORCH), **({"requirements-dev.txt": (DEV_PACKAGES,)} if dev else {})}
    wanted |= {"requirements-bench.txt": (BENCH_PACKAGES,)} if bench else {}
    for requirements, lists in wanted.items():
        stamp = VENV / f".{requirements}.installed"
        content = hashlib.sha256(b"".join(path.read_bytes() for path in lists)).hexdigest()
        if stamp.exists() and stamp.read_text() == content:
            continue
        usually = "1 to 5 min, 0.3 GB, or 2.5 GB where only PyTorch with CUDA can be had"
        with step(f"packages of {requirements}", usually if CUDA_TORCH in lists else "10 s, 40 MB"):
            needed = [path for path in lists if path != CUDA_TORCH or not install_torch_for_cpus()]
            install(*from_lists(*needed))
        stamp.write_text(content)
    if bench:
        install_bench_venvs()


def install_bench_venvs() -> None:
    """An environment for each list in bench/environments: MLServer wants an older FastAPI than stands beside it."""
    glibc = tuple(map(int, platform.libc_ver()[1].split(".")))
    for packages in sorted(BENCH_LISTS.glob("*.txt")):
        if glibc >= BENCH_GLIBC.get(packages.stem, (0,)):
            install_apart(BENCH_VENVS / packages.stem, packages, "20 s, 100 MB")


def install_apart(venv: Path, packages: Path, usually: str) -> None:
    """An environment of its own, with the list's packages."""
    stamp, content = venv / ".installed", hashlib.sha256(packages.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == content:
        return
    with step(f"environment {venv.relative_to(ROOT)} of {packages.name}", usually):
        uv, python = str(PYTHON.with_name("uv")), str(venv / "bin" / "python")
        run([uv, "venv", "--quiet", "--clear", "--python", str(PYTHON), str(venv)])
        run([uv, "pip", "install", "--quiet", "--python", python, *from_lists(packages)])
    stamp.write_text(content)


def install_torch_for_cpus() -> bool:
    """A tenth of PyPI's PyTorch, but no list has its sums: only the version is pinned. False where it cannot be had."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line.startswith(("torch==", "torchvision=="))]
    try:
        quickly = {"UV_HTTP_TIMEOUT": "10", "UV_HTTP_RETRIES": "1"}
        install(*WHEELS, "--torch-backend", "cpu", *pins, **quickly)
    except SetupError:
        return False
    # PyPI's, from an earlier set-up, is the same version; it needs its list.
    return any(VENV.glob("lib/python*/site-packages/torch-*+cpu.dist-info"))


def from_lists(*paths: Path) -> list[str]:
    """What makes uv and pip take just what the lists name, and refuse a wheel with another sum."""
    return [*WHEELS, "--require-hashes", *(f"--requirement={path}" for path in paths)]


def install(*arguments: str, **settings: str) -> None:
    command = [str(PYTHON.with_name("uv")), "pip", "install", "--quiet", "--python", str(PYTHON)]
    run([*command, *arguments], {"UV_HTTP_TIMEOUT": "120", **settings})


def install_pulumi() -> None:
    if shutil.which("pulumi") or (TOOLS / "bin" / "pulumi").exists():
        return
    if not run_installer():
        build_pulumi()


def run_installer() -> bool:
    """Pulumi's own installer, into .tools; False where it cannot be reached."""
    try:
        with urllib.request.urlopen(PULUMI_INSTALLER, timeout=10) as response:
            script = response.read()
    except (urllib.error.URLError, OSError):
        return False
    with step(f"Pulumi CLI {PULUMI_VERSION} with Pulumi's installer", "30 s"):
        options = ["--version", PULUMI_VERSION, "--install-root", str(TOOLS), "--no-edit-path"]
        installed = subprocess.run(
            ["sh", "-s", "--", *options], input=script, env=environment(), capture_output=True, check=False
        )
    return installed.returncode == 0 and (TOOLS / "bin" / "pulumi").exists()


def build_pulumi() -> None:
    """Build the CLI and the Python language host from their Go modules, pinned in tools/go.mod and beside it."""
    go = shutil.which("go")
    if go is None:
        raise SetupError(
            f"the Pulumi CLI is missing and its installer cannot be reached: install it ({PULUMI_HELP}) or Go"
        )
    version = run([go, "env", "GOVERSION"], GO_ENVIRONMENT)
    if tuple(int(part) for part in version.strip().removeprefix("go").split(".")[:2]) < MIN_GO:
        raise SetupError(
            f"Go {MIN_GO[0]}.{MIN_GO[1]} or newer is needed to build the Pulumi CLI, found {version.strip()}"
        )
    binaries = TOOLS / "bin"
    with step(f"Pulumi CLI {PULUMI_VERSION}, built from its Go modules", "5 min"):
        host = ROOT / "tools" / "pulumi-language-python"
        run([go, "build", "-o", f"{binaries}/", LANGUAGE_HOST_PACKAGE], GO_ENVIRONMENT, host)
        found = run([go, "list", "-m", "-f", "{{.Dir}}", LANGUAGE_HOST_MODULE], GO_ENVIRONMENT, host).strip()
        script = Path(found) / "python" / "cmd" / "pulumi-language-python-exec"
        shutil.copyfile(script, binaries / script.name)
        (binaries / script.name).chmod(0o755)
        flags = f"-s -w -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v{PULUMI_VERSION}"
        # The CLI last and by renaming: its presence says that all of this is done.
        run([go, "build", "-ldflags", flags, "-o", f"{CACHE}/pulumi", PULUMI_PACKAGE], GO_ENVIRONMENT, ROOT / "tools")
        os.replace(CACHE / "pulumi", binaries / "pulumi")
        run([go, "clean", "-cache", "-modcache"], GO_ENVIRONMENT)


def install_triton() -> None:
    directory = TOOLS / "triton"
    stamp = directory / STAMP
    wheel = hashlib.sha256(TRITON_LIST.read_bytes()).hexdigest()
    wanted = f"wheel of list {wheel} for Python {runtime.VERSION}, links to {runtime.BACKEND}"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    with step("Triton Inference Server 2.51.0", "10 s, 55 MB"):
        downloads = CACHE / "downloads"
        command = [str(PYTHON), "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        run([*command, "--dest", str(downloads), *from_lists(TRITON_LIST)])
        runtime.lay_out(next(downloads.glob("nvidia_pytriton-*.whl")), directory)
    stamp.write_text(wanted)


# What a command's most telling line has in it, most telling first; uv's and pip's words for a wrong sum lead.
WORTH_SAYING = ("hash mismatch", "do not match the hashes", "error")
GO_ENVIRONMENT = {
    "GOPATH": str(CACHE / "go"),
    "GOCACHE": str(CACHE / "go-build"),
    "GOENV": "off",
    "GOWORK": "off",
    "GOFLAGS": "-mod=readonly -buildvcs=false",
    "GOTOOLCHAIN": "local",
    "CGO_ENABLED": "0",
    "HOME": str(CACHE / "home"),  # where the go command keeps its telemetry
}


def environment() -> dict[str, str]:
    """The user's environment, with every cache inside the checkout."""
    return {**os.environ, "UV_CACHE_DIR": str(CACHE / "uv"), "PIP_CACHE_DIR": str(CACHE / "pip")}


def run(command: list[str], extra: dict[str, str] | None = None, directory: Path = ROOT) -> str:
    """Run a command quietly; its output is told only when it fails."""
    CACHE.mkdir(exist_ok=True)
    done = subprocess.run(
        command, cwd=directory, env={**environment(), **(extra or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        said = [line for word in WORTH_SAYING for line in reversed(lines) if word in line.lower()] or lines[-1:]
        reason = said[0].strip() if said else "no output"
        raise SetupError(f"`{' '.join(Path(part).name for part in command[:4])} …` failed: {reason}")
    return done.stdout


class step:  # noqa: N801  # reads as a statement: with step(...)
    """Say what is done and how long it usually takes, then how long it took."""

    def __init__(self, what: str, usually: str, say: Callable[[str], None] = print) -> None:
        self.what, self.usually, self.say = what, usually, say

    def __enter__(self) -> None:
        self.started = time.monotonic()
        self.say(f"setting up {self.what} (usually {self.usually})")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.say(f"          {self.what}: done in {time.monotonic() - self.started:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
