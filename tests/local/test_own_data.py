"""Stack local on somebody's own pictures: the page on it, run as it stands."""

from pathlib import Path

from PIL import Image
from tests.checkout import WITHOUT_SETUP, Checkout
from tests.docs.pages import blocks_to_run, run

from mnist.data import read_pair

PICTURES = 840


def write_pictures(originals: Path, folder: Path) -> None:
    """What the page starts from: a folder for each digit, with pictures of another size than MNIST's."""
    images, labels = (idx.values[:PICTURES] for idx in read_pair(originals, "train"))
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / str(label) / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((40, 40)).save(path)


def test_the_page_on_own_data_works_as_it_stands(checkout: Checkout, originals: Path) -> None:
    write_pictures(originals, checkout.root / "my-digits")
    printed = run(blocks_to_run("docs/how-to/use-your-own-data.md"), checkout.root, WITHOUT_SETUP)
    assert "my-data: 700 training and 140 test images" in printed, printed
    results = checkout.results()
    assert results["dataset"] == "custom" and results["test_images"] == 140, "what was trained on is what was packed"
    assert results["equal_to_pytorch"] == 140, "and served"
    assert printed.splitlines()[-1] == str(checkout.storage / "results/latest/report.html"), "`make report` names it"
