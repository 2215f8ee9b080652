"""Reading and writing IDX files: whatever lies there, the answer is the data or one DataError."""

import gzip
import hashlib
import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnist.data import FILES, MANIFEST, Images, Labels, Manifest, load, read_idx, read_manifest, read_pair
from mnist.data import write_images as save_images
from mnist.data import write_labels as save_labels
from mnist.errors import DataError, PipelineError

IMAGES, LABELS = FILES["t10k", "images"], FILES["t10k", "labels"]
shared_directory = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def some_images(count: int) -> Images:
    return np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def some_labels(count: int) -> Labels:
    return (np.arange(count) % 10).astype(np.uint8)


def idx(magic: int, *shape: int, body: bytes) -> bytes:
    return gzip.compress(struct.pack(f">{1 + len(shape)}I", magic, *shape) + body)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """All four files and the manifest that vouches for them."""
    sums = {}
    for (_, part), name in FILES.items():
        if part == "images":
            save_images(tmp_path / name, some_images(12))
        else:
            save_labels(tmp_path / name, some_labels(12))
        sums[name] = read_idx(tmp_path / name, part).sha256
    Manifest("custom", "this test", sums).write(tmp_path)
    return tmp_path


def test_what_was_written_is_loaded(directory: Path) -> None:
    images, labels = load(directory, "t10k")
    assert np.array_equal(images, some_images(12)), "pixels are kept"
    assert np.array_equal(labels, some_labels(12)), "labels are kept"


@shared_directory
@given(content=st.binary(min_size=1, max_size=5), labels=st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_any_images_and_labels_come_back_equal(tmp_path: Path, content: bytes, labels: list[int]) -> None:
    images = np.resize(np.frombuffer(content, np.uint8), (len(labels), 28, 28))
    save_images(tmp_path / IMAGES, images)
    save_labels(tmp_path / LABELS, np.array(labels, np.uint8))
    read_images, read_labels = read_pair(tmp_path, "t10k")
    assert np.array_equal(read_images.values, images), "images survive the round trip"
    assert read_labels.values.tolist() == labels, "labels survive the round trip"
    plain = struct.pack(">II", 2049, len(labels)) + bytes(labels)
    assert read_labels.sha256 == hashlib.sha256(plain).hexdigest(), "the sum is of the uncompressed content"


@shared_directory
@given(content=st.binary(max_size=200), compressed=st.booleans(), part=st.sampled_from(["images", "labels"]))
def test_arbitrary_bytes_never_raise_anything_else(tmp_path: Path, content: bytes, compressed: bool, part: str) -> None:
    path = tmp_path / "file"
    header = struct.pack(">I", 2051 if part == "images" else 2049)
    path.write_bytes(gzip.compress(header + content) if compressed else b"\x1f\x8b\x08" + content)
    try:
        found = read_idx(path, "images" if part == "images" else "labels")
    except DataError:
        return
    assert len(found.values) > 0, "only what is whole is accepted"


@shared_directory
@given(cut=st.integers(0, 400), flip=st.integers(0, 400))
def test_damaged_files_never_pass(tmp_path: Path, cut: int, flip: int) -> None:
    path = tmp_path / IMAGES
    save_images(path, some_images(1))
    whole = path.read_bytes()
    path.write_bytes(whole[: min(cut, len(whole) - 1)])
    with pytest.raises(DataError):
        read_idx(path, "images")
    position = 10 + flip  # behind gzip's header, where time stamp and system do not matter
    path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
    with pytest.raises(DataError):
        read_idx(path, "images")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


BREAKAGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": (IMAGES, Path.unlink, "is missing"),
    "truncated": (IMAGES, _truncate, "damaged or truncated"),
    "empty": (IMAGES, lambda path: path.write_bytes(b""), "truncated"),
    "not gzip": (LABELS, lambda path: path.write_bytes(b"<html>not found</html>"), "damaged"),
    "a directory": (LABELS, _make_directory, "is a directory, expected an IDX file"),
    "swapped": (IMAGES, lambda path: save_labels(path, some_labels(12)), "images and labels are swapped"),
    "another kind": (
        LABELS,
        lambda path: path.write_bytes(idx(1234, 1, body=b"0")),
        "magic number 1234, expected 2049",
    ),
    "within its header": (
        IMAGES,
        lambda path: path.write_bytes(gzip.compress(b"\0\0\x08\x03")),
        "ends within its header",
    ),
    "wrong size": (
        IMAGES,
        lambda path: path.write_bytes(idx(2051, 1, 32, 32, body=bytes(1024))),
        "32x32, expected 28x28",
    ),
    "label out of range": (
        LABELS,
        lambda path: save_labels(path, np.array([3] * 11 + [10], np.uint8)),
        "label 10 at index 11, expected 0 to 9",
    ),
    "too few labels": (LABELS, lambda path: save_labels(path, some_labels(11)), "has 12 images"),
    "no images": (IMAGES, lambda path: path.write_bytes(idx(2051, 0, 28, 28, body=b"")), "claims 0 images"),
    "claims too many": (
        IMAGES,
        lambda path: path.write_bytes(idx(2051, 2**32 - 1, 28, 28, body=b"")),
        "claims 4294967295 images",
    ),
    "fewer than claimed": (IMAGES, lambda path: path.write_bytes(idx(2051, 2, 28, 28, body=bytes(784))), "fewer bytes"),
    "more than claimed": (IMAGES, lambda path: path.write_bytes(idx(2051, 1, 28, 28, body=bytes(785))), "more bytes"),
    "changed": (IMAGES, lambda path: save_images(path, some_images(12)[::-1]), "changed since prepare-data wrote it"),
    "no manifest": (MANIFEST, Path.unlink, "run the prepare-data stage first"),
    "empty manifest": (MANIFEST, lambda path: path.write_bytes(b""), "is damaged"),
    "binary manifest": (MANIFEST, lambda path: path.write_bytes(b"\xff\xfe\x00"), "is damaged"),
    "manifest of a list": (MANIFEST, lambda path: path.write_bytes(b"[]"), "is damaged"),
    "manifest a directory": (MANIFEST, _make_directory, "a directory stands where a file is needed"),
    "manifest without sums": (
        MANIFEST,
        lambda path: path.write_text(json.dumps({"dataset": "mnist", "source": "x", "sha256": {}})),
        "is damaged",
    ),
    "manifest of another dataset": (
        MANIFEST,
        lambda path: path.write_text(path.read_text().replace('"custom"', '"fashion"')),
        "is damaged",
    ),
    "manifest with numbers": (
        MANIFEST,
        lambda path: path.write_text(
            json.dumps({"dataset": "mnist", "source": "x", "sha256": dict.fromkeys(FILES.values(), 1)})
        ),
        "is damaged",
    ),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_broken_data_are_refused_with_file_and_reason(directory: Path, name: str) -> None:
    file, breakage, reason = BREAKAGES[name]
    breakage(directory / file)
    with pytest.raises(PipelineError) as caught:
        load(directory, "t10k")
    message = str(caught.value)
    assert reason in message, "what is wrong"
    assert str(directory / file) in message, "where"
    assert "\n" not in message, "one line"


def test_a_gzip_bomb_is_refused_without_being_unpacked(tmp_path: Path) -> None:
    path = tmp_path / IMAGES
    half_a_gigabyte = gzip.compress(bytes(16 << 20)) * 32  # members follow each other
    path.write_bytes(gzip.compress(struct.pack(">IIII", 2051, 1, 28, 28)) + half_a_gigabyte)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="more bytes than the 1 images its header claims"):
            read_idx(path, "images")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20, "no more is read than the header claims"


def test_a_recompressed_copy_counts_as_the_same_data(directory: Path) -> None:
    path = directory / IMAGES
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=1, mtime=1))
    assert len(load(directory, "t10k")[0]) == 12, "sums are of the content, not of its packing"


def test_the_test_digest_names_the_test_data_alone(directory: Path) -> None:
    manifest = read_manifest(directory)
    other = Manifest(manifest.dataset, "x", {**manifest.sha256, FILES["train", "images"]: "0" * 64})
    assert other.test_digest == manifest.test_digest, "accuracies stay comparable"
    assert other.digest != manifest.digest, "the data as a whole changed"
