"""Train ResNet-18 on the prepared data and keep the best checkpoint. Needs no network.

    python workloads/train.py --storage storage/local --epochs 1
    torchrun --standalone --nproc-per-node 2 workloads/train.py --storage storage/local

A checkpoint is written every --checkpoint-every steps; a training that was stopped or killed goes on from it when the
same command runs again, to the same weights as if nothing had happened.
"""

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

import torch

from mnist import accelerator, cli, compact, distributed, model, optimizer, resnet, training
from mnist.accelerator import ACCELERATORS, Compute, compute
from mnist.checkpoint import Checkpoint, TrainConfig, link_best, resumable, save
from mnist.cli import StageLog, number, stop_request
from mnist.cpus import available_cpus
from mnist.data import Manifest, load, read_manifest
from mnist.distributed import Workers, joined, workers
from mnist.errors import CheckpointError, InterruptedStageError
from mnist.network import NetworkMonitor, Traffic
from mnist.storage import CHECKPOINT, Storage, make_directory, new_run, require_space
from mnist.training import Tensors, Trainer, evaluate

DEFAULT_EPOCHS = {"mnist": 1, "digits": 15, "custom": 1}
NEEDED_BYTES = 400 << 20  # two checkpoints of 134 MB (weights and Adam's two moments) while one replaces the other


def parser() -> argparse.ArgumentParser:
    options = cli.parser("train", (__doc__ or "").splitlines()[0])
    options.add_argument("--epochs", type=number(int, 0), default=0, help="0: 1 on MNIST, 15 on digits")
    options.add_argument("--batch-size", type=number(int, 2), default=256)
    options.add_argument(
        "--learning-rate", type=number(float, 1e-9, 1), default=4e-3, help="the one-cycle schedule's peak"
    )
    options.add_argument("--seed", type=number(int, 0, 2**31 - 1), default=1)
    options.add_argument(
        "--target-accuracy", type=number(float, 0, 1), default=0.0, help="stop after an epoch that reaches it"
    )
    options.add_argument("--checkpoint-every", type=number(int, 1), default=50, metavar="STEPS")
    options.add_argument("--log-every", type=number(int, 1), default=10, metavar="STEPS")
    options.add_argument("--accelerator", choices=ACCELERATORS, default="none", help="to train on (%(default)s)")
    options.add_argument("--threads", type=number(int, 0), default=0, help="0: as many as CPUs are available")
    return options


def train(options: argparse.Namespace, storage: Storage, log: StageLog) -> dict[str, Any]:
    """The stage; returns what ends its log: run, accuracy (0..1), seconds, history, bytes on the network.

    Raises:
        DataError: the prepared data are missing or changed.
        StorageError: the storage cannot hold the checkpoints.
        InterruptedStageError: it was asked to stop, and has written a checkpoint.
    """
    team = workers()
    hardware = compute(options.accelerator, team.local_rank)
    with joined(team, hardware.backend):
        return _train(options, storage, log, team, hardware)


def _train(
    options: argparse.Namespace, storage: Storage, log: StageLog, workers: Workers, hardware: Compute
) -> dict[str, Any]:
    manifest = read_manifest(storage.data)
    threads = options.threads or max(1, available_cpus() // workers.local_count)
    torch.set_num_threads(threads)
    hardware.make_deterministic()
    require_space(make_directory(storage.checkpoints), NEEDED_BYTES)
    config = _config(options, manifest, threads, workers)
    train_set, test_set = (Tensors.of(*load(storage.data, split)) for split in ("train", "t10k"))
    path, resumed = resumable(storage, config) or (None, None)
    # By its end, all workers have looked for a checkpoint.
    trainer = Trainer(config, train_set, resumed, workers, hardware)
    start = f"going on at step {trainer.step} of {trainer.steps}" if resumed else f"{trainer.steps} steps"
    each = f"{threads} threads" if options.accelerator == "none" else str(hardware)
    by = f"{workers.count} workers of {each}" if workers.count > 1 else each
    log.say(f"training on {manifest.dataset}, {len(train_set.labels):,} images, {start}, {by}")
    network = NetworkMonitor()
    if not workers.leads:
        _follow(trainer)
        return {}
    path = path or new_run(storage.checkpoints) / CHECKPOINT
    _lead(trainer, test_set, path, options, log)
    return _finish(trainer, path, network.traffic(), storage, log)


def _finish(trainer: Trainer, path: Path, traffic: Traffic, storage: Storage, log: StageLog) -> dict[str, Any]:
    accuracy = trainer.epochs[-1]["test_accuracy"]
    final = trainer.checkpoint(complete=True, accuracy=accuracy)
    final.network = {"bytes_sent": traffic.sent, "bytes_received": traffic.received}
    save(final, path)
    _tell_best(storage, path, final, log)
    log.say(
        f"test accuracy {accuracy:.4f} after {final.seconds:.0f} s; network during training: "
        f"{traffic.sent:,} bytes sent, {traffic.received:,} received by this machine"
    )
    return _summary(path, final)


def _config(options: argparse.Namespace, manifest: Manifest, threads: int, workers: Workers) -> TrainConfig:
    return TrainConfig(
        dataset=manifest.dataset,
        data_digest=manifest.digest,
        test_digest=manifest.test_digest,
        epochs=options.epochs or DEFAULT_EPOCHS[manifest.dataset],
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
        target_accuracy=options.target_accuracy,
        threads=threads,
        code=_code_digest(),
        torch_version=str(torch.__version__),
        workers=workers.count,
        accelerator=options.accelerator,
    )


def _code_digest() -> str:
    """A resumed training must go on with the code it began with."""
    here = Path(__file__)
    modules = (accelerator, compact, distributed, model, optimizer, resnet, training)
    sources = [here, *(Path(str(module.__file__)) for module in modules)]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def _lead(trainer: Trainer, test_set: Tensors, path: Path, options: argparse.Namespace, log: StageLog) -> None:
    told = trainer.step

    def each_step(trainer: Trainer) -> None:
        nonlocal told
        if trainer.step - told >= options.log_every or trainer.step == trainer.steps:
            progress = trainer.progress(since=told)
            log.say(str(progress), event="progress", **vars(progress))
            told = trainer.step
        if trainer.step % options.checkpoint_every == 0 and trainer.step < trainer.steps:
            save(trainer.checkpoint(), path)

    def end_of_epoch(trainer: Trainer) -> bool:
        loss, accuracy = evaluate(trainer.model, test_set)
        epoch = trainer.step // trainer.batches
        trainer.epochs.append({"epoch": epoch, "step": trainer.step, "test_loss": loss, "test_accuracy": accuracy})
        log.say(
            f"epoch {epoch}: test loss {loss:.4f}, test accuracy {accuracy:.4f}", event="epoch", **trainer.epochs[-1]
        )
        return bool(0 < options.target_accuracy <= accuracy)

    with stop_request() as stop:
        if not trainer.run(each_step, end_of_epoch, stop):
            save(trainer.checkpoint(), path)
            raise _stopped(trainer)


def _follow(trainer: Trainer) -> None:
    """Train with the leader, who alone tells, evaluates and writes."""
    with stop_request() as stop:
        if not trainer.run(lambda _: None, lambda _: False, stop):
            raise _stopped(trainer)


def _stopped(trainer: Trainer) -> InterruptedStageError:
    return InterruptedStageError(
        f"training stopped at step {trainer.step} of {trainer.steps}; run again to go on from there"
    )


def _tell_best(storage: Storage, path: Path, final: Checkpoint, log: StageLog) -> None:
    try:
        better = link_best(storage, path, final)
    except CheckpointError as error:
        log.warn(str(error))
        return
    if better is not None:
        log.say(f"best_model.pth keeps the earlier checkpoint: its accuracy {better:.4f} > {final.accuracy:.4f}")


def _summary(path: Path, final: Checkpoint) -> dict[str, Any]:
    return {
        "run": path.parent.name,
        "dataset": final.config.dataset,
        "accuracy": final.accuracy,
        "training_seconds": round(final.seconds, 3),
        "images_per_second": round(final.step * final.config.batch_size / final.seconds, 1),
        "config": vars(final.config),
        "history": final.history,
        "epochs": final.epochs,
        "network": final.network,
    }


def main(argv: list[str] | None = None) -> int:
    return cli.run("train", parser(), argv, train, leads=workers().leads)


if __name__ == "__main__":
    sys.exit(main())
