"""Where the data set comes from: a directory, the public mirrors, a URL, or scikit-learn's bundled digits."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mnist.data import (
    FILES,
    MANIFEST,
    PARTS,
    RENEW,
    SIDE,
    Idx,
    Images,
    Part,
    Split,
    read_idx,
    reading,
    require_file,
    write_images,
    write_labels,
)
from mnist.errors import DataError
from mnist.storage import explained, make_directory, write_atomic

# The mirrors that torchvision.datasets.MNIST uses, and the one of TensorFlow's tutorials.
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
    "http://yann.lecun.com/exdb/mnist",
)
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
MAX_FILE_BYTES = 1 << 30
INCOMING = ".incoming"  # in the data directory: where files are put together before they replace those of before

Say = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """A place that has the four files under their own names."""

    name: str
    obtain: Callable[[str, Path], None]  # (file name, destination) → the file lies there whole


def directory_source(directory: Path) -> Source:
    """A directory of the user's; raises a `DataError` where a file is missing, unreadable or larger than 1 GiB."""

    def obtain(name: str, destination: Path) -> None:
        path = directory / name
        with reading(path):
            if not path.exists():
                raise DataError(f"{path} is missing: datasetDir must hold the four files {', '.join(FILES.values())}")
            require_file(path)
            if path.stat().st_size > MAX_FILE_BYTES:
                raise DataError(f"{path} is larger than {MAX_FILE_BYTES:,} bytes: not a data set of this kind")
            content = path.read_bytes()
        write_atomic(destination, content)

    return Source(str(directory), obtain)


def url_source(base: str, say: Say) -> Source:
    """A web server's directory; errors as for `download`."""

    def obtain(name: str, destination: Path) -> None:
        download(f"{base.rstrip('/')}/{name}", destination, say)

    return Source(base, obtain)


def download(url: str, destination: Path, say: Say) -> None:
    """Download to `<destination>.part`, going on where an earlier try ended, then rename.

    Raises:
        DataError: the server cannot be reached or does not have the file.
        StorageError: the part cannot be written.
    """
    import requests  # only this stage needs the network; other images do not carry it
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

    part = destination.with_name(destination.name + ".part")
    retrying = Retrying(
        stop=stop_after_attempt(4),
        wait=wait_exponential(multiplier=0.5, max=5),
        retry=retry_if_exception_type((requests.exceptions.ChunkedEncodingError, requests.exceptions.ReadTimeout)),
        reraise=True,
    )
    try:
        retrying(_fetch, url, part, say)
    except requests.RequestException as error:
        raise DataError(f"cannot download {url}: {_reason(error)}") from None
    with explained(destination):
        os.replace(part, destination)


def _fetch(url: str, part: Path, say: Say) -> None:
    import requests

    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            part.unlink()  # nothing left to ask for: the part is not a beginning of this file
            raise requests.exceptions.ChunkedEncodingError("the partial download does not fit")
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        say(f"downloading {url}" + (f", going on at byte {have:,}" if resumed else ""))
        cut_off: requests.RequestException | None = None
        with explained(part), part.open("ab" if resumed else "wb") as file:
            try:
                for chunk in response.iter_content(1 << 18):
                    file.write(chunk)
                    if file.tell() > MAX_FILE_BYTES:
                        raise DataError(f"{url} is larger than {MAX_FILE_BYTES:,} bytes: not a data set of this kind")
            except requests.RequestException as error:  # requests' are OSErrors too, but say nothing about the disk
                cut_off = error
        if cut_off is not None:
            raise cut_off


def _reason(error: Exception) -> str:
    """requests nests the cause in long representations; people need its first line."""
    import requests

    if isinstance(error, requests.HTTPError):
        return f"the server answered {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    return "the server cannot be reached" if isinstance(error, requests.ConnectionError) else str(error)


def obtain_all(source: Source, directory: Path, sums: dict[str, str] | None) -> dict[str, str]:
    """Bring the four files into `directory`, keeping those that are there and right.

    The files of before, and the manifest that vouches for them, stay until all of the new ones are known to be right.

    Args:
        source: Where to take missing files from.
        directory: The data directory in storage.
        sums: The expected sums by file name, or None to check structure only.

    Returns:
        The sums (SHA-256, hexadecimal) of the uncompressed contents by file name.

    Raises:
        DataError: the source does not have them, or has others.
        StorageError: the directory cannot be written.
    """
    with _replacing(directory) as incoming:
        found: dict[str, Idx] = {}
        for (_, part), name in FILES.items():
            kept = _present(directory / name, part, sums)
            if kept is not None:
                (incoming / name).unlink(missing_ok=True)  # of an earlier try
            found[name] = kept or _present(incoming / name, part, sums) or _obtain(source, incoming / name, part, sums)
        _check_counts(source, {name: len(idx.values) for name, idx in found.items()})
    return {name: idx.sha256 for name, idx in found.items()}


def _check_counts(source: Source, counts: dict[str, int]) -> None:
    splits: tuple[Split, Split] = ("train", "t10k")
    for split in splits:
        images, labels = (FILES[split, part] for part in PARTS)
        if counts[images] != counts[labels]:
            raise DataError(
                f"{source.name}/{images} has {counts[images]} images, but {labels} {counts[labels]} labels: "
                "use files that belong together"
            )


@contextlib.contextmanager
def _replacing(directory: Path) -> Iterator[Path]:
    """A directory to put files together in; at the end, if all went well, they replace those of `directory`."""
    incoming = make_directory(directory / INCOMING)
    try:
        yield incoming
        with explained(directory / MANIFEST, "remove"):
            (directory / MANIFEST).unlink(missing_ok=True)  # from here to its rewriting, nothing vouches
        with explained(directory):
            for name in FILES.values():
                if (incoming / name).exists():
                    os.replace(incoming / name, directory / name)
    finally:
        with contextlib.suppress(OSError):
            incoming.rmdir()  # not empty after a failure: what is right there is not fetched twice


def _present(path: Path, part: Part, sums: dict[str, str] | None) -> Idx | None:
    """What lies there, if it is right; what is damaged is fetched anew."""
    if sums is None:
        return None
    with contextlib.suppress(DataError):
        idx = read_idx(path, part)
        if idx.sha256 == sums[path.name]:
            return idx
    return None


def _obtain(source: Source, path: Path, part: Part, sums: dict[str, str] | None) -> Idx:
    source.obtain(path.name, path)
    try:
        idx = read_idx(path, part)
        if sums is not None and idx.sha256 != sums[path.name]:
            raise DataError(f"{path.name} from {source.name} is not MNIST's (SHA-256 differs): use dataset custom")
    except DataError as error:
        path.unlink(missing_ok=True)  # what is wrong does not stay where the next stage would find it
        message = str(error).replace(str(path), f"{source.name}/{path.name}").replace(RENEW, "replace it")
        raise DataError(message) from None
    return idx


def write_digits(directory: Path) -> dict[str, str]:
    """Write scikit-learn's handwritten digits (UCI, 1,797 images of 8 x 8) as MNIST-like IDX files.

    https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits

    As MNIST's own digits, each image is scaled to 20 x 20 and centred in 28 x 28. Every fifth image (359, the same
    each time) is test data. Returns the sums by file name, as `obtain_all`.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.stack([_mnist_like(image) for image in digits.images])
    labels = digits.target.astype(np.uint8)
    test = np.arange(len(labels)) % 5 == 4
    sums: dict[str, str] = {}
    splits: tuple[tuple[Split, np.ndarray], ...] = (("train", ~test), ("t10k", test))
    with _replacing(directory) as incoming:
        for split, chosen in splits:
            images_path, labels_path = incoming / FILES[split, "images"], incoming / FILES[split, "labels"]
            write_images(images_path, images[chosen])
            write_labels(labels_path, labels[chosen])
            sums[images_path.name] = read_idx(images_path, "images").sha256
            sums[labels_path.name] = read_idx(labels_path, "labels").sha256
    return sums


def _mnist_like(image: np.ndarray) -> Images:
    from PIL import Image

    small = Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8))  # the source's grey levels are 0..16
    framed = np.zeros((SIDE, SIDE), np.uint8)
    framed[4:24, 4:24] = np.asarray(small.resize((20, 20), Image.Resampling.BICUBIC))
    return framed
