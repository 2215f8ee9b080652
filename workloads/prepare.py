"""Bring the data set into storage: MNIST, scikit-learn's digits, or your own IDX files.

    python workloads/prepare.py --storage storage/local --dataset mnist --dataset-dir ~/mnist

Writes data/mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz, then dataset.json, which vouches for them. Files that
are there and right are kept; a broken download goes on where it ended; data of before stay until the new are whole.
"""

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from mnist import cli
from mnist.cli import StageLog
from mnist.data import FILES, MNIST_SHA256, PARTS, Manifest, read_manifest, read_pair
from mnist.errors import DataError
from mnist.sources import MIRRORS, Source, directory_source, obtain_all, url_source, write_digits
from mnist.storage import Storage, make_directory, require_space

NEEDED_BYTES = 32 << 20  # the four files are 11 MiB; twice over while one is replaced


def parser() -> argparse.ArgumentParser:
    options = cli.parser("prepare-data", (__doc__ or "").splitlines()[0])
    options.add_argument("--dataset", choices=("mnist", "digits", "custom", "auto"), default="mnist")
    options.add_argument("--dataset-dir", type=Path, help="directory with the four IDX files")
    options.add_argument("--dataset-url", default="", help="base URL of the four IDX files")
    return options


def prepare(options: argparse.Namespace, storage: Storage, log: StageLog) -> dict[str, Any]:
    """The stage; returns what ends its log: data set, source, counts.

    Raises:
        DataError: the data cannot be had, or are not what they should be.
        StorageError: the storage cannot hold them.
    """
    make_directory(storage.data)
    require_space(storage.data, NEEDED_BYTES)
    manifest = _mnist_in_place(storage.data) if options.dataset in ("mnist", "auto") else None
    fresh = manifest is None
    if manifest is None:
        manifest = _obtain(options, storage.data, log)
    train, test = (len(read_pair(storage.data, split)[1].values) for split in ("train", "t10k"))
    if fresh:
        manifest.write(storage.data)
    log.say(f"{manifest.dataset}: {train:,} training and {test:,} test images, from {manifest.source}")
    return {"dataset": manifest.dataset, "source": manifest.source, "train_images": train, "test_images": test}


def _mnist_in_place(directory: Path) -> Manifest | None:
    """The manifest of an earlier run, if it vouches for MNIST and the files still are what it says."""
    with contextlib.suppress(DataError):
        manifest = read_manifest(directory)
        found = {}
        for split in ("train", "t10k"):
            for idx, part in zip(read_pair(directory, split), PARTS, strict=True):
                found[FILES[split, part]] = idx.sha256
        if manifest.dataset == "mnist" and found == MNIST_SHA256:
            return manifest
    return None


def _obtain(options: argparse.Namespace, directory: Path, log: StageLog) -> Manifest:
    if options.dataset == "digits":
        return Manifest("digits", "scikit-learn's bundled digits", write_digits(directory))
    name, sums = ("custom", None) if options.dataset == "custom" else ("mnist", MNIST_SHA256)
    if options.dataset_dir is not None:  # the user said where: what is wrong there is an error, not a reason to go on
        source = directory_source(_expanded(options.dataset_dir))
        return Manifest(name, source.name, obtain_all(source, directory, sums))
    reasons = []
    for source in _online_sources(options, log):
        try:
            return Manifest(name, source.name, obtain_all(source, directory, sums))
        except DataError as error:
            reasons.append(str(error))
            log.warn(str(error))
    if options.dataset != "auto":
        raise DataError(
            f"{options.dataset} cannot be had: {'; '.join(reasons) or 'no source is set'}; "
            "set datasetDir to a directory with the four IDX files, datasetUrl, or dataset to digits"
        )
    log.warn("MNIST CANNOT BE HAD: using scikit-learn's 1,797 handwritten digits instead (dataset auto)")
    return Manifest("digits", "scikit-learn's bundled digits, because MNIST cannot be had", write_digits(directory))


def _expanded(directory: Path) -> Path:
    try:
        return directory.expanduser()
    except RuntimeError:
        raise DataError(f"datasetDir is {directory}: no home directory is known for its ~, use another path") from None


def _online_sources(options: argparse.Namespace, log: StageLog) -> list[Source]:
    own = [options.dataset_url] if options.dataset_url else []
    bases = own if options.dataset == "custom" else [*MIRRORS, *own]
    return [url_source(base, log.say) for base in bases]


def main(argv: list[str] | None = None) -> int:
    return cli.run("prepare-data", parser(), argv, prepare)


if __name__ == "__main__":
    sys.exit(main())
