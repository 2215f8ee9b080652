"""Reading and writing IDX files: whatever lies there, the answer is the data or one DataError."""

import gzip
import hashlib
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnist.data import FILES, MAGIC, PARTS, Images, Labels, Manifest, Part, load, read_idx, read_manifest, read_pair
from mnist.data import write_images as save_images
from mnist.data import write_labels as save_labels
from mnist.errors import DataError

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
@given(
    part=st.sampled_from(PARTS),
    magic=st.sampled_from([2049, 2051, 1234]),
    count=st.integers(0, 3) | st.integers(0, 2**32 - 1),
    sides=st.just((28, 28)) | st.tuples(st.integers(0, 40), st.integers(0, 2**32 - 1)),
    extra=st.just(0) | st.integers(-800, 800),
    value=st.integers(0, 255),
)
def test_a_file_is_taken_only_if_all_of_its_header_is_true(
    tmp_path: Path, part: Part, magic: int, count: int, sides: tuple[int, int], extra: int, value: int
) -> None:
    shape = (count, *sides) if part == "images" else (count,)
    size = count * 784 if part == "images" else count
    body = bytes([value]) * max(0, min(size, 2352) + extra)
    (tmp_path / "file").write_bytes(idx(magic, *shape, body=body))
    right = magic == MAGIC[part] and 1 <= count <= 1_000_000 and len(body) == size
    right = right and (sides == (28, 28) if part == "images" else value < 10)
    try:
        found = read_idx(tmp_path / "file", part).values
    except DataError:
        assert not right, "what is right is taken"
    else:
        assert right and found.shape == shape, "what is wrong is refused"


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
