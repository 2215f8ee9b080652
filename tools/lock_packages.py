"""Write the lists of what is installed: every package at one version, with the SHA-256 of each wheel it may come as.

    python tools/lock_packages.py

constraints.txt                              all of requirements.txt and what that brings along, but not PyTorch
constraints-dev.txt                          what requirements-dev.txt adds
constraints-bench.txt                        what requirements-bench.txt adds
bench/environments/<name>.txt                what has an environment of its own
constraints-play.txt                         all of requirements-play.txt, which has an environment of its own too
workloads/docker/<image>/requirements.txt    all that an image installs, but not PyTorch
workloads/docker/tr-ex-job/torch-cuda.txt    PyTorch as PyPI has it, with CUDA
workloads/docker/uv.txt                      the installer
workloads/docker/triton/server.txt           the wheel that carries tritonserver

Whoever installs from a list installs nothing else, and refuses a wheel with another sum. PyTorch for CPUs is in no
list: it comes from PyTorch's own index, as other files, and is pinned by its version in requirements.txt alone.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCKER = Path("workloads", "docker")
UNIVERSAL = ("--universal", "--python-version", "3.11")
IN_IMAGES = ("--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_35")
NEEDS = {
    "tr-ex-job": (
        *("torch", "numpy", "onnx", "onnxruntime"),
        *("boto3", "pillow", "psutil", "requests", "scikit-learn", "tenacity"),
    ),
    "client-job": ("numpy", "tenacity", "jinja2", "matplotlib", "tritonclient[grpc]"),
    "triton": ("numpy", "onnxruntime"),
}
SINGLE = {
    DOCKER / "uv.txt": "uv==0.13.9",
    DOCKER / "triton" / "server.txt": "nvidia-pytriton==0.7.0",
    Path("bench", "environments", "perf-analyzer.txt"): "perf-analyzer==2.60.0",
}
# MLServer wants an older FastAPI than the one that is measured beside it.
MLSERVER, MLSERVER_NEEDS = Path("bench", "environments", "mlserver.txt"), "mlserver==1.7.1\n"
# PyTorch, and what only its build with CUDA brings along.
TORCH = ("torch==", "torchvision==", "triton==", "nvidia-", "cuda-")

Locked = dict[str, str]  # the line that pins a package → the same with its hashes


def main() -> int:
    names = ("requirements.txt", "requirements-dev.txt", "requirements-bench.txt")
    texts = [(ROOT / name).read_text() for name in names]
    needed, for_tests, for_bench = texts[0], "\n".join(texts[:2]), "\n".join([texts[0], texts[2]])
    everything = resolved("\n".join(texts), *UNIVERSAL)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
        pins.write("\n".join(everything))
        pins.flush()
        same_versions = ("--constraint", pins.name)
        wanted = (needed, for_tests, for_bench)
        run, tests, bench = (resolved(text, *UNIVERSAL, *same_versions) for text in wanted)
        images = {image: resolved("\n".join(needs), *IN_IMAGES, *same_versions) for image, needs in NEEDS.items()}
    torch, rest = parted(run)
    write(Path("constraints.txt"), rest)
    write(Path("constraints-dev.txt"), {line: entry for line, entry in tests.items() if line not in run})
    write(Path("constraints-bench.txt"), {line: entry for line, entry in bench.items() if line not in run})
    same_runtime = [line for line in texts[0].splitlines() if line.startswith(("numpy==", "onnxruntime=="))]
    write(MLSERVER, resolved("\n".join([MLSERVER_NEEDS, *same_runtime]), *UNIVERSAL))
    write(Path("constraints-play.txt"), resolved((ROOT / "requirements-play.txt").read_text(), *UNIVERSAL))
    write(DOCKER / "tr-ex-job" / "torch-cuda.txt", torch)
    for image, locked in images.items():
        write(DOCKER / image / "requirements.txt", parted(locked)[1])
    for path, requirement in SINGLE.items():
        write(path, resolved(requirement, *UNIVERSAL, "--no-deps"))
    return 0


def resolved(requirements: str, *options: str) -> Locked:
    command = [str(ROOT / ".venv" / "bin" / "uv"), "pip", "compile", "--quiet", "--no-annotate", "--no-header"]
    command += ["--generate-hashes", "--only-binary", ":all:", *options, "-"]
    done = subprocess.run(command, cwd=ROOT, input=requirements, text=True, stdout=subprocess.PIPE, check=True)
    return entries(done.stdout.splitlines())


def entries(lines: Sequence[str]) -> Locked:
    """A list's packages; the lines with a package's hashes are indented."""
    found: Locked = {}
    pin = ""
    for line in lines:
        if not line.startswith(" "):
            pin = line.removesuffix("\\").strip()
            found[pin] = line
        else:
            found[pin] += f"\n{line}"
    return found


def parted(locked: Locked) -> tuple[Locked, Locked]:
    """PyTorch, and the rest."""
    torch = {line: entry for line, entry in locked.items() if line.startswith(TORCH)}
    return torch, {line: entry for line, entry in locked.items() if line not in torch}


def write(path: Path, locked: Locked) -> None:
    content = "\n".join(["# Made by `make constraints`; tools/lock_packages.py says what it is.", *locked.values()])
    (ROOT / path).write_text(content + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
