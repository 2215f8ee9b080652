"""Small data sets and storages for the tests, taken from MNIST or scikit-learn's digits."""

from pathlib import Path

import prepare
from mnist.data import FILES, PARTS, Images, Labels, Split, read_pair, write_images, write_labels
from mnist.storage import Storage
from tests.support import run_main, succeeded

# 320 images in 10 steps: enough to be interrupted.
QUICK = ("--epochs", 1, "--batch-size", 32, "--checkpoint-every", 3, "--log-every", 1, "--threads", 1)


def write_pair(directory: Path, split: Split, images: Images, labels: Labels) -> None:
    image_file, label_file = (directory / FILES[split, part] for part in PARTS)
    write_images(image_file, images)
    write_labels(label_file, labels)


def write_subset(originals: Path, directory: Path, train_images: int, test_images: int) -> Path:
    """The first images of the originals as a data set of its own."""
    counts: tuple[tuple[Split, int], ...] = (("train", train_images), ("t10k", test_images))
    for split, count in counts:
        images, labels = read_pair(originals, split)
        write_pair(directory, split, images.values[:count], labels.values[:count])
    return directory


def prepared(root: Path, dataset: Path) -> Storage:
    succeeded(run_main(prepare.main, "--storage", root, "--dataset", "custom", "--dataset-dir", dataset))
    return Storage(root)
