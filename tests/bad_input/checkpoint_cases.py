"""Checkpoints that are damaged, of another model, or run code: the export refuses them, what is served stays."""

import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

import export
from mnist.checkpoint import Checkpoint, load, save
from mnist.model import build_model
from tests.bad_input.case import Bench, Case

Damage = Callable[[Path], object]
BEST = "{root}/storage/checkpoints/best_model.pth"
UNREADABLE = "/proc/self/mem"  # a file whose first byte nobody can read, not even root


def refused(bench: Bench, damage: Damage) -> str:
    """Export with a damaged checkpoint; what was published before stays."""
    damage(bench.copy("exported_storage", "data", "checkpoints", "models").best_model.resolve())
    return bench.refused(export.main, "--min-accuracy=0.1")


def damaged(name: str, damage: Damage, *expected: str) -> Case:
    return Case(f"checkpoint {name}", lambda bench: refused(bench, damage), (BEST, *expected))


def malicious(name: str, write: Callable[[object, Path], object]) -> Case:
    def provoke(bench: Bench) -> str:
        return refused(bench, lambda path: write(bench.malicious(), path))

    return Case(f"checkpoint {name}", provoke, (BEST, "it was not executed", "train again"))


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def without_its_end(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def with_zeros(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(1000))


def flipped(path: Path) -> None:
    """One bit of one weight."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def compressed(path: Path) -> None:
    """Torch would unpack it into memory, whatever its size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(64 << 20))


def as_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def unreadable(path: Path) -> None:
    path.unlink()
    path.symlink_to(UNREADABLE)


def changed(change: Callable[[Checkpoint], Checkpoint]) -> Damage:
    """A checkpoint of this project, but for one thing."""
    return lambda path: save(change(load(path)), path)


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def changed_weights(checkpoint: Checkpoint) -> Checkpoint:
        model = dict(checkpoint.model)
        change(model)
        return replace(checkpoint, model=model)

    return changed(changed_weights)


def of_imagenet(model: dict[str, torch.Tensor]) -> None:
    other = build_model()
    other.fc = torch.nn.Linear(512, 1000)
    model.update(other.state_dict())


def with_nan(model: dict[str, torch.Tensor]) -> None:
    model["fc.bias"] = torch.full((10,), torch.nan)


def without_a_link(bench: Bench) -> str:
    bench.copy("exported_storage", "data", "models")
    return bench.refused(export.main)


def with_a_dangling_link(bench: Bench) -> str:
    storage = bench.copy("exported_storage", "data", "models")
    storage.checkpoints.mkdir()
    storage.best_model.symlink_to("gone/checkpoint.pth")
    return bench.refused(export.main)


def of_other_data(bench: Bench) -> str:
    bench.copy("exported_storage", "checkpoints", "models")
    bench.copy("small_storage", "data")
    return bench.refused(export.main)


NOT_ONE = "is damaged or not a checkpoint"
CASES = (
    Case("checkpoint missing", without_a_link, (BEST, "is missing: run the train stage")),
    Case(
        "checkpoint missing behind its link",
        with_a_dangling_link,
        (BEST, "is missing (links to gone/checkpoint.pth): run the train stage"),
    ),
    Case("checkpoint of other data", of_other_data, (BEST, "was trained with other data (custom)", "train again")),
    malicious("with code in its archive", torch.save),
    malicious("that is a pickle with code", lambda content, path: path.write_bytes(pickle.dumps(content))),
    damaged("empty", lambda path: path.write_bytes(b""), NOT_ONE, "train again"),
    damaged("that is text", lambda path: path.write_bytes(b"not a checkpoint at all"), NOT_ONE, "train again"),
    damaged("truncated", truncated, NOT_ONE, "train again"),
    damaged("without its last byte", without_its_end, NOT_ONE, "train again"),
    damaged("with zeros in its middle", with_zeros, "is damaged (wrong check sum in", "train again"),
    damaged("with a flipped bit", flipped, "is damaged (wrong check sum in", "train again"),
    damaged("compressed", compressed, "is compressed, not a checkpoint of this project: train again"),
    damaged("a directory", as_a_directory, "is a directory, expected a checkpoint: move it away and train again"),
    damaged("unreadable", unreadable, "cannot read", "input/output error"),
    damaged("of another architecture", weights(of_imagenet), "is not a resnet18", "(fc.bias differs): train again"),
    damaged(
        "of half precision",
        weights(lambda model: model.update({"fc.bias": model["fc.bias"].half()})),
        "(fc.bias differs): train again",
    ),
    damaged("with NaN", weights(with_nan), "holds NaN or infinity (fc.bias): train again with a lower learningRate"),
    damaged("of another format", changed(lambda old: replace(old, format=99)), "format 99, expected 2: train again"),
    damaged("with an accuracy above 1", changed(lambda old: replace(old, accuracy=97.0)), NOT_ONE, "(accuracy 97.0)"),
    damaged("with nothing but weights", lambda path: torch.save({"model": {}}, path), NOT_ONE, "(another program's)"),
    damaged("that is a list", lambda path: torch.save([1, 2], path), NOT_ONE, "(another program's)"),
    damaged("that is a tensor", lambda path: torch.save(torch.zeros(3), path), NOT_ONE, "(another program's)"),
    damaged(
        "without weights",
        changed(lambda old: replace(old, model={})),
        "is not a resnet18 for 1x28x28 images (bn1.bias differs): train again",
    ),
    damaged(
        "with text for a number",
        lambda path: torch.save({**vars(load(path)), "config": {**vars(load(path).config), "seed": "one"}}, path),
        f"{NOT_ONE} (seed is of another type)",
    ),
)
