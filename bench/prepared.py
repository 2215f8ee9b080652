"""What the benchmarks work on, in .cache/bench: MNIST, a checkpoint of this project's, and three exports of it."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import ROOT
from bench.errors import BenchError
from mnist.storage import Storage

WORK = ROOT / ".cache" / "bench"
WORKLOADS = ROOT / "workloads"
EXPORTS = ("unfolded", "fp32", "int8")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Exports:
    """Files that bench/models.py writes."""

    directory: Path

    def model(self, name: str) -> Path:
        return self.directory / f"{name}.onnx"

    def logits(self, name: str) -> Path:
        """Of the whole test set with ONNX Runtime, float32 [10000, 10]."""
        return self.directory / f"{name}-logits.npy"

    @property
    def pixels(self) -> Path:
        """The whole test set in [0, 1], float32 [10000, 1, 28, 28]."""
        return self.directory / "pixels.npy"

    @property
    def report(self) -> Path:
        """Sizes, nodes, accuracy and parity with PyTorch of each."""
        return self.directory / "exports.json"


def data(say: Say) -> Storage:
    """MNIST, in a storage of the benchmarks' own; of MNIST_DIR, else of the public mirrors."""
    storage = Storage(WORK / "storage")
    directory = os.environ.get("MNIST_DIR")
    source = ["--dataset-dir", str(Path(directory).resolve())] if directory else []
    _run(say, "preparing MNIST", "prepare.py", storage, "--dataset", "mnist", *source)
    return storage


def checkpoint(say: Say) -> Storage:
    """The same with a trained checkpoint."""
    storage = data(say)
    if not storage.best_model.exists():
        _run(say, "training one epoch, once: 2 min", "train.py", storage)
    return storage


def exports(say: Say) -> Exports:
    """All exports of the checkpoint, made again when the exporting code changes."""
    storage, made = checkpoint(say), Exports(WORK / "exports")
    sources = sorted([*(WORKLOADS / "mnist").glob("*.py"), ROOT / "bench" / "models.py"])
    wanted = hashlib.sha256(b"".join(path.read_bytes() for path in sources) + _stamp(storage)).hexdigest()
    stamp = made.directory / ".stamp"
    if not stamp.exists() or stamp.read_text(encoding="ascii") != wanted:
        say("exporting the checkpoint: 40 s")
        command = [sys.executable, "-m", "bench.models", str(storage.root), str(made.directory)]
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            raise BenchError(f"the exports failed; the reason is above (remove {storage.root} to train anew)")
        stamp.write_text(wanted, encoding="ascii")
    return made


def _stamp(storage: Storage) -> bytes:
    return str(storage.best_model.stat().st_mtime_ns).encode()


def _run(say: Say, what: str, script: str, storage: Storage, *options: str) -> None:
    say(what)
    command = [sys.executable, str(WORKLOADS / script), "--storage", str(storage.root), *options]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1].removeprefix("error: ")
        raise BenchError(f"{what} failed: {reason}; MNIST_DIR may name a directory with MNIST's four files")
