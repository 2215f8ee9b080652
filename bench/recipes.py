"""Ways to train ResNet-18 on MNIST, each in a process of its own.

python -m bench.recipes NAME STORAGE SEED
"""

import gzip
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from torchvision.models.resnet import BasicBlock, ResNet

from bench.worker import Answer, peak_megabytes, serve
from mnist import data
from mnist.accelerator import Compute
from mnist.checkpoint import TrainConfig
from mnist.cpus import available_cpus
from mnist.model import MEAN, STD
from mnist.storage import Storage
from mnist.training import Tensors, Trainer, batch_bounds, epoch_order, evaluate

EPOCH = 60_000
Batches = Iterator[tuple[Tensor, Tensor]]


class Plain:
    """torchvision's model in a plain loop; `batches` yields one epoch's."""

    def __init__(self, batches: Callable[[], Batches], optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
        self.model, self.optimizer = model, optimizer
        self.schedule: OneCycleLR | None = None
        self._batches = itertools.chain.from_iterable(batches() for _ in itertools.count())

    def train(self, images: int) -> None:
        self.model.train()
        while images > 0:
            inputs, labels = next(self._batches)
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(inputs), labels)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self.optimizer.step()
            if self.schedule is not None:
                self.schedule.step()
            images -= len(labels)


def _torchvisions() -> nn.Module:
    """torchvision's ResNet-18, for images of one channel."""
    model: nn.Module = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=10)
    model.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return model


class Tutorial(Plain):
    """As tutorials do it: torchvision's MNIST through PIL, image by image, batches of 64, Adam at 1e-3."""

    def __init__(self, storage: Storage) -> None:
        self._files = tempfile.TemporaryDirectory()
        raw = Path(self._files.name) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for name in data.FILES.values():
            (raw / name.removesuffix(".gz")).write_bytes(gzip.decompress((storage.data / name).read_bytes()))
        model = _torchvisions()
        super().__init__(lambda: iter(self._loader(True)), torch.optim.Adam(model.parameters(), lr=1e-3), model)

    def _loader(self, train: bool) -> Any:
        steps = [transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))]
        images = datasets.MNIST(self._files.name, train=train, transform=transforms.Compose(steps))
        return DataLoader(images, batch_size=64 if train else 1000, shuffle=train)

    def accuracy(self) -> float:
        self.model.eval()
        with torch.no_grad():
            correct = sum(int((self.model(images).argmax(1) == labels).sum()) for images, labels in self._loader(False))
        return correct / 10_000


class InMemory(Plain):
    """The whole set as one normalised tensor, and Adam's steps fused."""

    def __init__(self, storage: Storage, seed: int, batch_size: int, rate: float, one_cycle: bool) -> None:
        self.storage = storage
        tensors = Tensors.of(*data.load(storage.data, "train"))

        def batches() -> Batches:
            order = epoch_order(EPOCH, seed, 0)
            for start, end in batch_bounds(EPOCH, batch_size):
                yield tensors.images[order[start:end]], tensors.labels[order[start:end]]

        model = _torchvisions()
        super().__init__(batches, torch.optim.Adam(model.parameters(), lr=rate, fused=True), model)
        if one_cycle:
            self.schedule = OneCycleLR(
                self.optimizer, max_lr=rate, total_steps=len(batch_bounds(EPOCH, batch_size)) + 1
            )

    def accuracy(self) -> float:
        return evaluate(self.model, Tensors.of(*data.load(self.storage.data, "t10k")))[1]


class Ours:
    """workloads/mnist/training.py, as workloads/train.py runs it."""

    def __init__(self, storage: Storage, seed: int) -> None:
        Compute().make_deterministic()
        manifest = data.read_manifest(storage.data)
        config = TrainConfig(
            dataset="mnist",
            data_digest=manifest.digest,
            test_digest=manifest.test_digest,
            epochs=1,
            batch_size=256,
            learning_rate=4e-3,
            seed=seed,
            target_accuracy=0.0,
            threads=available_cpus(),
            code="",
            torch_version=str(torch.__version__),
        )
        self.storage, self.trainer = storage, Trainer(config, Tensors.of(*data.load(storage.data, "train")))

    def train(self, images: int) -> None:
        stop, last = threading.Event(), self.trainer.step + images // self.trainer.config.batch_size

        def each_step(trainer: Trainer) -> None:
            if trainer.step >= last:
                stop.set()

        self.trainer.run(each_step, lambda trainer: False, stop)

    def accuracy(self) -> float:
        return evaluate(self.trainer.model, Tensors.of(*data.load(self.storage.data, "t10k")))[1]


def make(name: str, storage: Storage, seed: int) -> Tutorial | InMemory | Ours:
    torch.manual_seed(seed)
    torch.set_num_threads(available_cpus())
    if name == "baseline":
        return Tutorial(storage)
    if name == "in memory":
        return InMemory(storage, seed, 64, 1e-3, one_cycle=False)
    if name == "batch 256":
        return InMemory(storage, seed, 256, 4e-3, one_cycle=True)
    return Ours(storage, seed)


def main(name: str, storage: Storage, seed: int) -> None:
    recipe = make(name, storage, seed)

    def answer(request: Answer) -> Answer:
        started = time.perf_counter()
        if "images" in request:
            recipe.train(request["images"])
        accuracy = recipe.accuracy() if request.get("accuracy") else None
        return {"seconds": time.perf_counter() - started, "accuracy": accuracy, "peak_mb": peak_megabytes()}

    serve(answer)


if __name__ == "__main__":
    main(sys.argv[1], Storage(Path(sys.argv[2])), int(sys.argv[3]))
