"""Data files that are damaged, missing, or not what they claim to be: the user's own, and those in the storage."""

import contextlib
import gzip
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import prepare
import train
from mnist.data import FILES, MANIFEST, write_images, write_labels
from tests.bad_input.case import Bench, Case
from tests.support import refusal, run_main

IMAGES, LABELS = FILES["t10k", "images"], FILES["t10k", "labels"]
COUNT = 100  # test images of small_storage
UNREADABLE = "/proc/self/mem"  # a file whose first byte nobody can read, not even root
NOBODY = 65534

Damage = Callable[[Path], object]


def idx(magic: int, *shape: int, body: bytes = b"") -> bytes:
    return gzip.compress(struct.pack(f">{1 + len(shape)}I", magic, *shape) + body)


def written(content: bytes) -> Damage:
    return lambda path: path.write_bytes(content)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def changed(path: Path) -> None:
    write_images(path, np.zeros((COUNT, 28, 28), np.uint8))


def labels(values: list[int]) -> Damage:
    return lambda path: write_labels(path, np.array(values, np.uint8))


def instead(make: Callable[[Path], object]) -> Damage:
    """Something else in the file's place."""

    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def manifest(**changes: object) -> Damage:
    """The manifest with other fields."""

    def damage(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")

    return damage


a_directory, a_pipe = instead(Path.mkdir), instead(os.mkfifo)
unreadable = instead(lambda path: path.symlink_to(UNREADABLE))
half_a_gigabyte = gzip.compress(bytes(16 << 20)) * 32  # members follow each other

DAMAGED = "is damaged or truncated"
RENEW = "replace it, or remove dataset.json beside it"
PREPARE_AGAIN = "is damaged: remove it and run the prepare-data stage again"

Fault = tuple[str, str, Damage, str]  # name, file, damage, what the line says of it

FAULTS: tuple[Fault, ...] = (
    ("missing", IMAGES, Path.unlink, "is missing: "),
    ("truncated", IMAGES, truncated, DAMAGED),
    ("swapped with its labels", IMAGES, labels([1] * COUNT), "magic number 2049, expected 2051, images and labels are"),
    ("of larger images", IMAGES, written(idx(2051, 1, 32, 32, body=bytes(1024))), "are 32x32, expected 28x28"),
    ("a gzip bomb", IMAGES, written(idx(2051, 1, 28, 28) + half_a_gigabyte), "holds more bytes than the 1 images"),
    ("with a label out of range", LABELS, labels([3] * 11 + [10]), "label 10 at index 11, expected 0 to 9"),
    ("a directory", LABELS, a_directory, "is a directory, expected a file: move it away"),
    ("a pipe", LABELS, a_pipe, "is not a regular file: move it away"),
    ("unreadable", LABELS, unreadable, "(input/output error): make it readable, or replace it"),
)
IN_STORAGE: tuple[Fault, ...] = (
    *FAULTS,
    ("empty", IMAGES, written(b""), "is truncated, it ends within its header"),
    ("not gzip", LABELS, written(b"<html>not found</html>"), f"{DAMAGED} (Not a gzipped file"),
    ("ending within its header", IMAGES, written(gzip.compress(b"\0\0\x08\x03")), "ends within its header"),
    ("of another kind", LABELS, written(idx(1234, 1, body=b"0")), "magic number 1234, expected 2049, not an IDX file"),
    ("without images", IMAGES, written(idx(2051, 0, 28, 28)), "the header claims 0 images, expected 1 to 1000000"),
    ("claiming too many", IMAGES, written(idx(2051, 2**32 - 1, 28, 28)), "the header claims 4294967295 images"),
    ("with fewer than claimed", IMAGES, written(idx(2051, 2, 28, 28, body=bytes(784))), "holds fewer bytes than the 2"),
    ("with more than claimed", IMAGES, written(idx(2051, 1, 28, 28, body=bytes(785))), "holds more bytes than the 1"),
    ("with too few labels", LABELS, labels([1] * 99), "99 labels: use files that belong together"),
    ("other than it was", IMAGES, changed, f"changed since prepare-data wrote it: {RENEW}"),
    ("missing", MANIFEST, Path.unlink, "is missing: run the prepare-data stage first"),
    ("empty", MANIFEST, written(b""), PREPARE_AGAIN),
    ("binary", MANIFEST, written(b"\xff\xfe\x00"), PREPARE_AGAIN),
    ("a list", MANIFEST, written(b"[]"), PREPARE_AGAIN),
    ("nested deeply", MANIFEST, written(b"[" * 200_000), PREPARE_AGAIN),
    ("a directory", MANIFEST, a_directory, "is a directory, expected a file: move it away"),
    ("a pipe", MANIFEST, a_pipe, "is not a regular file: move it away"),
    ("without sums", MANIFEST, manifest(sha256={}), PREPARE_AGAIN),
    ("with numbers", MANIFEST, manifest(sha256=dict.fromkeys(FILES.values(), 1)), PREPARE_AGAIN),
    ("with sums that are none", MANIFEST, manifest(sha256=dict.fromkeys(FILES.values(), "\ud800")), PREPARE_AGAIN),
    ("of another dataset", MANIFEST, manifest(dataset="fashion"), PREPARE_AGAIN),
    ("with more in it", MANIFEST, manifest(more=1), PREPARE_AGAIN),
)


def users(name: str, file: str, damage: Damage, reason: str) -> Case:
    """A file of datasetDir; the data prepared before stay."""

    def provoke(bench: Bench) -> str:
        bench.copy("small_storage", "data")
        shutil.copytree(bench.storage.data, bench.root / "mine")
        damage(bench.root / "mine" / file)
        return bench.refused(prepare.main, "--dataset=custom", f"--dataset-dir={bench.root / 'mine'}")

    return Case(f"user's file {name}", provoke, (f"{{root}}/mine/{file}", reason))


def stored(name: str, file: str, damage: Damage, reason: str) -> Case:
    """A file in the storage; training does not begin."""

    def provoke(bench: Bench) -> str:
        damage(bench.copy("small_storage", "data").data / file)
        return bench.refused(train.main, "--threads=1")

    what = "stored manifest" if file == MANIFEST else "stored file"
    return Case(f"{what} {name}", provoke, (f"{{root}}/storage/data/mnist/{file}", reason))


def images_and_labels_that_do_not_fit(bench: Bench) -> str:
    bench.copy("small_storage", "data")
    shutil.copytree(bench.storage.data, bench.root / "mine")
    labels([1] * 99)(bench.root / "mine" / LABELS)
    return bench.refused(prepare.main, "--dataset=custom", f"--dataset-dir={bench.root / 'mine'}")


def another_data_set_for_mnist(bench: Bench) -> str:
    bench.copy("small_storage", "data")
    shutil.copytree(bench.storage.data, bench.root / "mine")
    return bench.refused(prepare.main, "--dataset=mnist", f"--dataset-dir={bench.root / 'mine'}")


def data_set_nowhere(directory: str) -> Callable[[Bench], str]:
    def provoke(bench: Bench) -> str:
        bench.copy("small_storage", "data")
        return bench.refused(prepare.main, "--dataset=custom", f"--dataset-dir={directory}")

    return provoke


def server_of_other_things(bench: Bench) -> str:
    """An address that answers, but does not have the files."""
    bench.copy("small_storage", "data")
    return bench.refused(prepare.main, "--dataset=custom", f"--dataset-url={bench.server.triton.http}/v2")


def a_directory_of_another_user(bench: Bench) -> str:
    """Root may read everything, so the stage runs as nobody; and nobody may look into pytest's directories."""
    secret = bench.root / "mine"
    secret.mkdir(mode=0o000)
    with tempfile.TemporaryDirectory() as storage, _as_nobody(Path(storage)):
        options = (f"--storage={storage}/storage", "--dataset=custom", f"--dataset-dir={secret}")
        return refusal(run_main(prepare.main, *options))


@contextlib.contextmanager
def _as_nobody(owned: Path) -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.chown(owned, NOBODY, -1)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


CASES = (
    *(users(*fault) for fault in FAULTS),
    *(stored(*fault) for fault in IN_STORAGE),
    Case(
        "data set whose images and labels do not fit",
        images_and_labels_that_do_not_fit,
        ("{root}/mine/t10k-images-idx3-ubyte.gz has 100 images, but", "99 labels: use files that belong together"),
    ),
    Case(
        "data set that is not MNIST",
        another_data_set_for_mnist,
        ("train-images-idx3-ubyte.gz from {root}/mine is not MNIST's (SHA-256 differs): use dataset custom",),
    ),
    Case(
        "data set in no directory",
        data_set_nowhere("/nowhere"),
        ("/nowhere/train-images-idx3-ubyte.gz is missing: datasetDir must hold the four files",),
    ),
    Case("data set of no user", data_set_nowhere("~no-such-user"), ("~no-such-user: no home directory is known",)),
    Case(
        "data set at an address without it",
        server_of_other_things,
        ("/v2/train-images-idx3-ubyte.gz: the server answered 404", "set datasetDir"),
    ),
    Case(
        "data set of another user",
        a_directory_of_another_user,
        ("cannot read {root}/mine/train-images-idx3-ubyte.gz (permission denied): make it readable",),
    ),
)
