"""MNIST's four IDX files: reading, writing and checking them. No network here.

The format is documented at http://yann.lecun.com/exdb/mnist: a big-endian header (magic, sizes), then raw bytes.
"""

import contextlib
import gzip
import hashlib
import json
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from mnist.errors import DataError
from mnist.records import record
from mnist.storage import write_atomic

Split = Literal["train", "t10k"]
Part = Literal["images", "labels"]
PARTS: tuple[Part, Part] = ("images", "labels")
Images = npt.NDArray[np.uint8]  # [N, 28, 28]
Labels = npt.NDArray[np.uint8]  # [N], 0..9

SIDE = 28
CLASSES = 10
MAGIC: dict[str, int] = {"images": 2051, "labels": 2049}
MAX_IMAGES = 1_000_000  # bounds what a hostile header can make us allocate
MANIFEST = "dataset.json"
RENEW = f"replace it, or remove {MANIFEST} beside it to have it prepared anew"
DATASETS = ("mnist", "digits", "custom")

FILES: dict[tuple[Split, Part], str] = {
    ("train", "images"): "train-images-idx3-ubyte.gz",
    ("train", "labels"): "train-labels-idx1-ubyte.gz",
    ("t10k", "images"): "t10k-images-idx3-ubyte.gz",
    ("t10k", "labels"): "t10k-labels-idx1-ubyte.gz",
}

# SHA-256 of the files' uncompressed content, so that re-compressed copies count as what they are. The content is that
# of the files whose MD5 sums torchvision.datasets.MNIST.resources lists.
MNIST_SHA256 = {
    "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@dataclass(frozen=True)
class Manifest:
    """What lies in the data directory. It is written last, so it vouches for the files beside it."""

    dataset: str  # mnist, digits or custom
    source: str  # where the files came from, for people
    sha256: dict[str, str]  # file name → sum of the uncompressed content

    @property
    def digest(self) -> str:
        """Names all four files."""
        return _digest(self.sha256[name] for name in FILES.values())

    @property
    def test_digest(self) -> str:
        """Names the test data: accuracies are comparable only where this is equal."""
        return _digest(self.sha256[FILES["t10k", part]] for part in PARTS)

    def write(self, directory: Path) -> None:
        write_atomic(directory / MANIFEST, json.dumps(asdict(self), indent=2) + "\n")


@dataclass(frozen=True)
class Idx:
    """One decoded IDX file."""

    values: npt.NDArray[np.uint8]  # [N] labels or [N, 28, 28] images
    sha256: str  # of the uncompressed content


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest.

    Raises:
        DataError: there is none, or it cannot be read: prepare-data has not finished here.
    """
    path = directory / MANIFEST
    with reading(path):
        if not path.exists():
            raise DataError(f"{path} is missing: run the prepare-data stage first")
        require_file(path)
        content = path.read_bytes()
    try:
        manifest = record(Manifest, json.loads(content))
        if manifest.dataset not in DATASETS or set(manifest.sha256) != set(FILES.values()):
            raise ValueError("not all files are vouched for")
        if not all(re.fullmatch("[0-9a-f]{64}", value) for value in manifest.sha256.values()):
            raise ValueError("no SHA-256")
    except (ValueError, TypeError, RecursionError):
        raise DataError(f"{path} is damaged: remove it and run the prepare-data stage again") from None
    return manifest


def load(directory: Path, split: Split) -> tuple[Images, Labels]:
    """Read one split, checked against the manifest's sums and for structure.

    Returns:
        Images, uint8 [N, 28, 28], and labels, uint8 [N] in 0..9.

    Raises:
        DataError: a file is missing, damaged or not what the manifest vouches for.
    """
    manifest = read_manifest(directory)
    images, labels = read_pair(directory, split)
    for part, idx in zip(PARTS, (images, labels), strict=True):
        path = directory / FILES[split, part]
        if idx.sha256 != manifest.sha256[path.name]:
            raise DataError(f"{path} changed since prepare-data wrote it: {RENEW}")
    return images.values, labels.values


def read_pair(directory: Path, split: Split) -> tuple[Idx, Idx]:
    """Read a split's images and labels and check their structure, whatever their sums.

    Raises:
        DataError: as `read_idx`, or there are not as many labels as images.
    """
    images_path, labels_path = (directory / FILES[split, part] for part in PARTS)
    images, labels = read_idx(images_path, "images"), read_idx(labels_path, "labels")
    if len(images.values) != len(labels.values):
        raise DataError(
            f"{images_path} has {len(images.values)} images, but {labels_path} {len(labels.values)} labels: "
            "use files that belong together"
        )
    return images, labels


def read_idx(path: Path, part: Part) -> Idx:
    """Read and check one gzipped IDX file.

    Raises:
        DataError: the file is missing, not a file, unreadable, truncated, not gzip, of another kind, of another size
            than its header claims, its images are not 28 x 28, or a label is not in 0..9.
    """
    with reading(path):
        if not path.exists():
            raise DataError(f"{path} is missing: put it there or run the prepare-data stage")
        require_file(path)
        try:
            with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as file:
                idx = _parse(path, part, file)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{path} is damaged or truncated ({error}): {RENEW}") from None
    if part == "labels" and idx.values.max() >= CLASSES:
        index = int(idx.values.argmax())
        raise DataError(f"{path}: label {idx.values[index]} at index {index}, expected 0 to {CLASSES - 1}: {RENEW}")
    return idx


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an OSError into a `DataError`: data are the user's, so the way out is another than for the storage.

    Raises:
        DataError: `path` could not be read.
    """
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"cannot read {path} ({reason}): make it readable, or replace it") from None


def require_file(path: Path) -> None:
    """Refuse what cannot be read to its end: a directory, a pipe, a device.

    Raises:
        DataError: `path` is one of these.
    """
    if path.is_dir():
        raise DataError(f"{path} is a directory, expected a file: move it away")
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is not a regular file: move it away")


def write_images(path: Path, images: Images) -> None:
    """Write images, uint8 [N, 28, 28], as a gzipped IDX file; the same images give the same bytes.

    Raises:
        StorageError: the file cannot be written.
    """
    header = struct.pack(">IIII", MAGIC["images"], len(images), SIDE, SIDE)
    write_atomic(path, gzip.compress(header + images.tobytes(), mtime=0))  # no time stamp: same images, same file


def write_labels(path: Path, labels: Labels) -> None:
    """Write labels, uint8 [N] in 0..9, as `write_images` does."""
    write_atomic(path, gzip.compress(struct.pack(">II", MAGIC["labels"], len(labels)) + labels.tobytes(), mtime=0))


def _parse(path: Path, part: Part, file: gzip.GzipFile) -> Idx:
    size_count = 3 if part == "images" else 1
    header = file.read(4 * (1 + size_count))
    if len(header) < 4 * (1 + size_count):
        raise DataError(f"{path} is truncated, it ends within its header: {RENEW}")
    magic, *shape = struct.unpack(f">{1 + size_count}I", header)
    if magic != MAGIC[part]:
        hint = "images and labels are swapped" if magic in MAGIC.values() else f"not an IDX file of {part}"
        raise DataError(f"{path}: magic number {magic}, expected {MAGIC[part]}, {hint}: {RENEW}")
    if part == "images" and shape[1:] != [SIDE, SIDE]:
        raise DataError(f"{path}: images are {shape[1]}x{shape[2]}, expected {SIDE}x{SIDE}: {RENEW}")
    if not 1 <= shape[0] <= MAX_IMAGES:
        raise DataError(f"{path}: the header claims {shape[0]} {part}, expected 1 to {MAX_IMAGES}: {RENEW}")
    size = int(np.prod(shape))
    body = file.read(size + 1)  # one more than there may be: enough to notice, too little to fill the memory
    if len(body) != size:
        amount = "fewer" if len(body) < size else "more"
        raise DataError(f"{path} holds {amount} bytes than the {shape[0]} {part} its header claims: {RENEW}")
    return Idx(np.frombuffer(body, np.uint8).reshape(shape).copy(), hashlib.sha256(header + body).hexdigest())


def _digest(sums: Iterable[str]) -> str:
    return hashlib.sha256("".join(sums).encode()).hexdigest()
