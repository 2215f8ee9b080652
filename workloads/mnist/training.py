"""The training loop: deterministic given the configuration, and resumable at every optimizer step."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mnist.accelerator import Compute
from mnist.checkpoint import Checkpoint, TrainConfig
from mnist.compact import CompactResNet18
from mnist.data import Images, Labels
from mnist.distributed import Workers
from mnist.model import build_model, normalise, to_pixels
from mnist.optimizer import OneCycleAdam

EVALUATION_BATCH = 250
RATE_STEPS = 20  # the images/s shown are those of the last so many steps, or since the last progress if that is longer


@dataclass(frozen=True)
class Tensors:
    """A data split, ready for the model."""

    images: Tensor  # float32 [N, 1, 28, 28], normalised
    labels: Tensor  # int64 [N]

    @classmethod
    def of(cls, images: Images, labels: Labels) -> "Tensors":
        """Of images, uint8 [N, 28, 28], and labels, uint8 [N]."""
        return cls(normalise(to_pixels(images)), torch.from_numpy(labels).long())

    def to(self, device: torch.device) -> "Tensors":
        """The same, in the device's memory."""
        return Tensors(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Progress:
    """Where a training is; it prints as the line that is shown."""

    epoch: int  # from 1
    step: int  # from 1
    steps: int  # in all
    loss: float  # mean over the steps since the last progress
    accuracy: float  # on the training images since the last progress, in 0..1
    images_per_second: float
    seconds_left: float

    def __str__(self) -> str:
        left = f"{self.seconds_left / 60:.0f} min" if self.seconds_left >= 90 else f"{self.seconds_left:.0f} s"
        return (
            f"step {self.step}/{self.steps}  loss {self.loss:.4f}  accuracy {self.accuracy:.4f}  "
            f"{self.images_per_second:,.0f} images/s  {left} left"
        )


class Trainer:
    """Adam under a one-cycle schedule (`mnist.optimizer`) on data held in memory.

    Args:
        config: With the data and the number of threads, all that decides the weights.
        resume: An unfinished checkpoint of the same configuration.
        workers: This process among those that train.
        compute: What it trains on.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: Tensors,
        resume: Checkpoint | None = None,
        workers: Workers | None = None,
        compute: Compute | None = None,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.workers, self.compute = workers or Workers(), compute or Compute()
        self.data = data.to(self.compute.device)
        self.bounds = batch_bounds(len(data.labels), config.batch_size, least=2 * self.workers.count)
        self.batches = len(self.bounds)
        self.steps = config.epochs * self.batches
        model = CompactResNet18(build_model(), channels_last=self.compute.channels_last)
        self.model = model.to(self.compute.device).train()
        self.optimizer = OneCycleAdam(self.model.parameters(), config.learning_rate, self.steps + 1)
        self.step = 0
        self.history: list[dict[str, float]] = []
        self.epochs: list[dict[str, float]] = []
        self._seconds_before = 0.0
        self._started = time.monotonic()
        self._marks = [(0, self._started)]
        if resume is not None:
            self._restore(resume)
        self._parallel = self.workers.parallel(self.model)

    def _restore(self, checkpoint: Checkpoint) -> None:
        assert checkpoint.optimizer is not None, "only unfinished ones are resumed"
        self.model.load_torchvision(checkpoint.model)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.step = checkpoint.step
        self.history, self.epochs = checkpoint.history, checkpoint.epochs
        self._seconds_before = checkpoint.seconds
        self._marks = [(self.step, self._started)]

    @property
    def seconds(self) -> float:
        """Of training so far, those of earlier attempts included."""
        return self._seconds_before + time.monotonic() - self._started

    def checkpoint(self, complete: bool = False, accuracy: float = 0.0) -> Checkpoint:
        """The state of now, with torchvision's names and shapes; `accuracy` in 0..1."""
        return Checkpoint(
            config=self.config,
            step=self.step,
            model=self.model.to_torchvision(),
            optimizer=None if complete else self.optimizer.state_dict(),
            complete=complete,
            accuracy=accuracy,
            seconds=self.seconds,
            history=self.history,
            epochs=self.epochs,
        )

    def run(
        self, each_step: Callable[["Trainer"], None], end_of_epoch: Callable[["Trainer"], bool], stop: Event
    ) -> bool:
        """Train to the end, until `end_of_epoch` says so, or until `stop` is set (then at a step's end).

        Returns:
            Whether the training is finished, not stopped. A training stopped or killed between an epoch's last step
            and the end of its evaluation goes on with that evaluation: `epochs` has an entry for each epoch.
        """
        while True:
            epoch, done = divmod(self.step, self.batches)
            if done == 0 and len(self.epochs) < epoch and self._evaluated(end_of_epoch):
                return True
            if self.step == self.steps:
                return True
            order = epoch_order(len(self.data.labels), self.config.seed, epoch)
            for start, end in self.bounds[done:]:
                stopped = self._one_step(order[start:end], stop)
                each_step(self)
                if stopped or (stop.is_set() and self.workers.count == 1):  # the others learn of it with the next step
                    return False

    def _evaluated(self, end_of_epoch: Callable[["Trainer"], bool]) -> bool:
        """The leader evaluates, and all learn whether that ends the training."""
        ended = self.workers.any(self.workers.leads and end_of_epoch(self), self.compute.device)
        if not self.workers.leads:
            self.epochs.append({})
        return ended

    def _one_step(self, batch: Tensor, stop: Event) -> bool:
        """Learn from a batch, int64 [B] of indices; says whether one of the workers was asked to stop."""
        mine = self.workers.share(batch).to(self.compute.device)
        images, labels = self.data.images[mine], self.data.labels[mine]
        with self.compute.autocast():
            logits = self._parallel(images).float()
        losses = nn.functional.cross_entropy(logits, labels, reduction="sum")
        self.optimizer.zero_grad()
        # The workers' gradients are averaged: with this factor they sum up to that of the batch's mean.
        (losses * (self.workers.count / len(batch))).backward()  # type: ignore[no-untyped-call]  # torch's own
        self.optimizer.step()
        self.step += 1
        correct = (logits.argmax(1) == labels).sum()
        told = torch.tensor([losses.item(), correct.item(), float(stop.is_set())], dtype=torch.float64)
        loss, right, stopped = self.workers.total(told.to(self.compute.device)).tolist()
        self.history.append({"step": self.step, "loss": loss / len(batch), "accuracy": right / len(batch)})
        return bool(stopped)

    def progress(self, since: int) -> Progress:
        """What to tell about the steps after `since`."""
        now = time.monotonic()
        recent_marks = [mark for mark in self._marks if mark[0] >= self.step - RATE_STEPS] or self._marks[-1:]
        self._marks = [*recent_marks, (self.step, now)]
        (first_step, first_time), recent = self._marks[0], self.history[since:]
        steps_per_second = (self.step - first_step) / max(now - first_time, 1e-9)
        return Progress(
            epoch=(self.step - 1) // self.batches + 1,
            step=self.step,
            steps=self.steps,
            loss=sum(entry["loss"] for entry in recent) / len(recent),
            accuracy=sum(entry["accuracy"] for entry in recent) / len(recent),
            images_per_second=steps_per_second * self.config.batch_size,
            seconds_left=(self.steps - self.step) / max(steps_per_second, 1e-9),
        )


def batch_bounds(count: int, batch_size: int, least: int = 2) -> list[tuple[int, int]]:
    """[start, end) of every batch. A last batch of fewer than `least` images joins the one before.

    Batch norm needs two values, of each worker.
    """
    bounds = [(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    if len(bounds) > 1 and bounds[-1][1] - bounds[-1][0] < least:
        bounds[-2:] = [(bounds[-2][0], count)]
    return bounds


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order of the images in an epoch, int64 [count]: a function of seed and epoch, so a resumed run repeats it."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator)


def predict(model: nn.Module, images: Tensor) -> npt.NDArray[np.float32]:
    """Of normalised images, float32 [N, 1, 28, 28], the logits, float32 [N, 10], in evaluation mode.

    The model's mode is put back. The batches are sent to where its weights are.
    """
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        logits = torch.cat([model(batch.to(device)).cpu() for batch in torch.split(images, EVALUATION_BATCH)])
    model.train(was_training)
    return np.asarray(logits.numpy(), dtype=np.float32)


def evaluate(model: nn.Module, data: Tensors) -> tuple[float, float]:
    """Mean cross-entropy and accuracy (0..1)."""
    logits = torch.from_numpy(predict(model, data.images))
    loss = nn.functional.cross_entropy(logits, data.labels).item()
    return loss, (logits.argmax(1) == data.labels).double().mean().item()
