"""Write workloads/docker/<image>/requirements.txt: what the image needs, and all that brings along, pinned.

python tools/lock_image.py tr-ex-job
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEEDS = {
    "tr-ex-job": (
        *("torch", "torchvision", "numpy", "onnx", "onnxruntime", "onnxslim"),
        *("psutil", "requests", "scikit-learn", "tenacity"),
    ),
    "client-job": ("numpy", "scikit-learn", "tenacity", "jinja2", "matplotlib", "tritonclient[grpc]"),
    "triton": ("numpy", "onnxruntime"),
}
# PyTorch with CUDA pins these itself; PyTorch for CPUs must not bring them along.
LEFT_TO_TORCH = ("nvidia-", "cuda-", "triton==")


def main() -> int:
    image = sys.argv[1]
    command = [str(ROOT / ".venv/bin/uv"), "pip", "compile", "--quiet", "--no-annotate", "--no-header"]
    command += [
        "--python-version",
        "3.11",
        "--python-platform",
        "x86_64-manylinux_2_35",
        "--constraint",
        "constraints.txt",
    ]
    done = subprocess.run(
        [*command, "-"], cwd=ROOT, input="\n".join(NEEDS[image]), text=True, stdout=subprocess.PIPE, check=True
    )
    lines = [line for line in done.stdout.splitlines() if not line.startswith(LEFT_TO_TORCH)]
    header = f"# All that image {image} installs, pinned. Made by: make constraints"
    path = ROOT / "workloads" / "docker" / image / "requirements.txt"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
