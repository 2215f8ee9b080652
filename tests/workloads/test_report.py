"""The report: one file with all that a run found, looked at in a real browser where there is one."""

import base64
import html
import io
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image as mpl_image

import client
import export
import prepare
import report
import train
from mnist.data import FILES, PARTS, read_pair
from mnist.storage import RESULTS_FILE, Storage
from reporting import charts, pictures
from reporting.history import Version
from serving import launch
from tests.browser import Browser, Scheme, running_browser
from tests.storages import write_pair
from tests.support import ROOT, refusal, run_main, succeeded
from tests.workloads.triton import MODEL, running_triton

Copy = Callable[[Storage], Storage]
MAX_REPORT_BYTES = 3 << 20
STAGES = (prepare, train, export, client, launch, report)
PARSERS = {module.__name__.rpartition(".")[2]: module.parser() for module in STAGES}
PAGE = Path(__file__).with_name("page_checks.js")


@pytest.fixture(scope="module")
def checked_storage(exported_storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """The exported model served by the real Triton and checked by the client. Not to be changed."""
    root = tmp_path_factory.mktemp("checked") / "storage"
    shutil.copytree(exported_storage.root, root, symlinks=True)
    with pytest.MonkeyPatch.context() as patch, running_triton(root, root.with_name("log")) as served:
        patch.setattr(client, "SINGLES", 50)
        options = ("--storage", root, "--endpoint", served.endpoint, "--min-accuracy", 0.1)
        succeeded(run_main(client.main, *options))
    return Storage(root)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as started:
        yield started


def run_of(storage: Storage) -> Path:
    return storage.latest_results.resolve()


def reported(storage: Storage) -> str:
    said = succeeded(run_main(report.main, "--storage", storage.root))
    path = run_of(storage) / "report.html"
    assert str(path) in said, "says where it lies"
    return path.read_text(encoding="utf-8")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def add_run(storage: Storage, name: str, version: int, **model: Any) -> None:
    """An earlier run's results, of another version."""
    results = read(run_of(storage) / RESULTS_FILE)
    results["served_version"] = version
    results["model"] |= model
    results["load"]["single"] |= {"p50_ms": 4.25, "p99_ms": 9.5}
    (storage.results / name).mkdir()
    (storage.results / name / RESULTS_FILE).write_text(json.dumps(results), encoding="utf-8")


def section(page: str, title: str) -> str:
    """What stands below a heading, as text."""
    part = page.partition(f"<h2>{title}</h2>")[2].partition("<h2>")[0]
    return " ".join(re.sub(r"<[^>]+>", " ", part).split())


def test_the_report_is_one_file_that_needs_no_network(checked_storage: Storage, copy_of: Copy) -> None:
    page = reported(copy_of(checked_storage))
    assert len(page) < MAX_REPORT_BYTES, "it can be sent by mail"
    loaded = re.findall(r"""\s(?:src|href)\s*=\s*["']?(?!data:|#)([^"'\s>]+)""", page)
    assert loaded == [], "nothing is loaded from elsewhere"
    assert not re.search(r"@import|url\((?!['\"]?(?:data:|#))", page), "not by its style either"
    assert f"{MODEL}, version 1" in page, "which version"
    for stage in ("prepare-data", "train", "export", "triton", "client"):
        assert f"<td>{stage}</td>" in page, "every stage with its time"
    assert "{{" not in page and "{%" not in page, "everything is filled in"


def test_the_figures_are_those_of_the_results(checked_storage: Storage, copy_of: Copy) -> None:
    storage = copy_of(checked_storage)
    page, results = reported(storage), read(run_of(checked_storage) / RESULTS_FILE)
    assert f"{100 * results['accuracy']:.2f} %" in page, "the served accuracy"
    latency = section(page, "Latency and throughput")
    for load in results["load"].values():
        for figure in ("p50_ms", "p90_ms", "p99_ms"):
            assert f"{load[figure]:.2f}" in latency, f"{figure} of each way of asking"
        assert f"{load['images_per_second']:,.0f}" in latency, "and its throughput"
    assert results["model"]["test_digest"] in section(page, "Data set"), "which test data, exactly"
    assert results["environment"]["platform"] in section(page, "Environment"), "and where it ran"
    right = sum(map(int, re.findall(r'<td class="right">(\d+)</td>', page)))
    assert right == round(results["accuracy"] * results["test_images"]), (
        "the confusion matrix's diagonal is what is right"
    )


def test_the_worst_mistakes_come_first_and_have_pictures(checked_storage: Storage, copy_of: Copy) -> None:
    storage = copy_of(checked_storage)
    mistakes = read(run_of(storage) / "mistakes.json")
    assert mistakes, "this model is not perfect"
    page = reported(storage).partition("<h2>Worst mistakes</h2>")[2].partition("<h2>")[0]
    shown = re.findall(r'alt="test image (\d+), label (\d)".*?→ (\d)</b>([\d.]+) %', page, re.DOTALL)
    expected = sorted(mistakes, key=lambda mistake: (-mistake["confidence"], mistake["index"]))[: pictures.WORST]
    assert [int(index) for index, *_ in shown] == [mistake["index"] for mistake in expected], "the surest ones first"
    assert [(int(label), int(guess)) for _, label, guess, _ in shown] == [
        (mistake["label"], mistake["prediction"]) for mistake in expected
    ], "with label and prediction"
    assert page.count("data:image/png;base64,") == len(expected), "and a picture each"


def test_without_the_runs_test_data_there_are_no_pictures_and_that_is_said(
    checked_storage: Storage, copy_of: Copy
) -> None:
    storage = copy_of(checked_storage)
    images, labels = read_pair(storage.data, "t10k")
    write_pair(storage.data, "t10k", images.values[::-1], labels.values[::-1])
    manifest = read(storage.data / "dataset.json")
    for part, file in zip(PARTS, read_pair(storage.data, "t10k"), strict=True):
        manifest["sha256"][FILES["t10k", part]] = file.sha256
    (storage.data / "dataset.json").write_text(json.dumps(manifest), encoding="utf-8")
    said = succeeded(run_main(report.main, "--storage", storage.root))
    assert "warning: no pictures in the report: the test data have changed" in said, "other data are noticed"
    page = (run_of(storage) / "report.html").read_text(encoding="utf-8")
    assert "data:image/png" not in page, "pictures of other digits would be wrong"
    assert "no pictures" in section(page, "Worst mistakes"), "and the page says so"
    (storage.data / FILES["t10k", "labels"]).unlink()
    assert "warning: no pictures in the report:" in succeeded(run_main(report.main, "--storage", storage.root))


def test_the_history_tells_accuracy_and_latency_of_every_version(checked_storage: Storage, copy_of: Copy) -> None:
    storage = copy_of(checked_storage)
    assert "<svg" not in reported(storage).partition("<h2>Versions</h2>")[2], "one version needs no chart"
    add_run(storage, "20200101-000000", 7, sha256="0" * 64, accuracy=0.4321, export_date="2020-01-01T00:00:00+00:00")
    add_run(storage, "20200102-000000", 1)
    add_run(storage, "20200103-000000", 1, sha256="f" * 64)  # another model that had this number once
    (storage.results / "20200104-000000").mkdir()
    (storage.results / "20200104-000000" / RESULTS_FILE).write_text('{"load": [', encoding="utf-8")
    page = reported(storage)
    rows = section(page, "Versions")
    single = read(run_of(storage) / RESULTS_FILE)["load"]["single"]
    assert re.search(r"7 2020-01-01 00:00 0\.4321 4\.25 9\.50 1 .* removed", rows), f"one that is gone: {rows}"
    assert re.search(rf"{single['p50_ms']:.2f} {single['p99_ms']:.2f} 2 .* served", rows), (
        f"the last of two checks: {rows}"
    )
    assert 'aria-label="Accuracy and latency by version"' in page, "and a chart of both"


def test_the_commands_to_repeat_it_are_ones_that_the_stages_take(checked_storage: Storage, copy_of: Copy) -> None:
    page = reported(copy_of(checked_storage))
    shown = re.findall(r"<code>(.*?)\n</code>", page.partition("<pre>")[2], re.DOTALL)
    lines = [html.unescape(re.sub(r"<[^>]+>", "", line)) for line in shown]
    assert len(lines) == 6, f"a command a stage: {lines}"
    for line in lines:
        python, script, *options = shlex.split(line.removesuffix(" &"))
        assert python == "python" and (ROOT / script).is_file(), line
        told = PARSERS[Path(script).stem].parse_args(options)
        assert told.storage == Path("storage/again"), "not into this run's storage"
    trained = PARSERS["train"].parse_args(shlex.split(lines[1])[2:])
    assert (trained.epochs, trained.batch_size, trained.threads) == (2, 32, 1), "as this model was trained"


def test_a_very_long_training_makes_no_large_file() -> None:
    history = [{"step": step, "loss": 1 / step, "accuracy": 0.5} for step in range(1, 100_001)]
    svg = charts.training(history, [{"step": 100_000, "test_loss": 0.1, "test_accuracy": 0.9}])
    assert len(svg) < 200_000, f"{len(svg)} bytes"
    assert len(charts.training([], [])) > 1000, "and one of which nothing is known an empty chart"


@pytest.mark.parametrize("damage", ["missing", "truncated", "of another kind", "without latencies"])
def test_a_report_of_damaged_results_is_refused(checked_storage: Storage, copy_of: Copy, damage: str) -> None:
    storage = copy_of(checked_storage)
    run = run_of(storage)
    if damage == "missing":
        (run / RESULTS_FILE).unlink()
    elif damage == "without latencies":
        (run / "latencies.json").write_text('{"single": []}', encoding="utf-8")
    else:
        (run / RESULTS_FILE).write_text('{"load": ' if damage == "truncated" else "{}", encoding="utf-8")
    message = refusal(run_main(report.main, "--storage", storage.root))
    assert str(run) in message, "where"
    assert "run the client stage" in message, "and what to do"


@pytest.mark.parametrize("width", [1200, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_all_of_it(
    browser: Browser, checked_storage: Storage, copy_of: Copy, scheme: Scheme, width: int
) -> None:
    storage = copy_of(checked_storage)
    add_run(storage, "20200101-000000", 7, sha256="0" * 64)  # for the versions' chart
    reported(storage)
    page = browser.page()
    page.show(scheme, width)
    page.open((run_of(storage) / "report.html").as_uri())
    page.evaluate(PAGE.read_text(encoding="utf-8"))
    elsewhere = [address for address in page.requests if not address.startswith(("file:", "data:"))]
    assert elsewhere == [], "nothing is asked of the network"
    assert page.problems == [], "the console has nothing to complain of"
    sizes = page.evaluate("sizes()")
    assert len(sizes["svg"]) == 3, "training, latencies, versions"
    assert len(sizes["img"]) == 10 + len(read(run_of(storage) / "mistakes.json")[: pictures.WORST]), "and the digits"
    assert all(size > 0 for kind in sizes.values() for size in kind), f"every picture is there: {sizes}"
    assert page.evaluate("faint()") == [], "all text can be read on its background"
    assert page.evaluate("overlapping()") == [], "no label lies on another"
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is wider than the window"
    is_dark = page.evaluate("luminance(getComputedStyle(document.body).backgroundColor) < 0.1")
    assert is_dark is (scheme == "dark"), "it is as light or dark as the user's system"


def test_labels_of_charts_stay_apart_whatever_the_values(browser: Browser, tmp_path: Path) -> None:
    def curve(first: float, last: float) -> str:
        losses = np.geomspace(first, last, 100)
        steps = [{"step": step, "loss": loss, "accuracy": 0.5} for step, loss in enumerate(losses, 1)]
        return charts.training(steps, [{"step": 100, "test_loss": last, "test_accuracy": 0.9}])

    def known(version: int, p50: float | None) -> Version:
        texts = dict.fromkeys(("exported", "precision", "dataset", "source", "state"), "")
        return Version(version=version, accuracy=0.98, checks=1, p50=p50, p99=p50, **texts)

    drawn = [curve(*ends) for ends in ((12, 1e-6), (0.013, 0.011), (2, 0.001), (0.5, 0.5), (100, 1e-12))]
    drawn += [charts.versions([known(version, 2.0) for version in range(1, 31)])]
    drawn += [charts.versions([known(1, None), known(2, None)]), charts.training([], [])]
    for slow in (0.02, 5000.0):
        measured = np.random.default_rng(1).gamma(2, slow, 500).tolist()
        names = {str(number): "16 at a time" for number in range(3)}
        load = {key: {"p50_ms": slow, "p99_ms": 4 * slow} for key in names}
        drawn += [charts.latencies(dict.fromkeys(names, measured), load, names)]
    (tmp_path / "page.html").write_text(f"<body style='width: 960px'>{''.join(drawn)}</body>", encoding="utf-8")
    page = browser.page()
    page.show("light", 1200)
    page.open((tmp_path / "page.html").as_uri())
    page.evaluate(PAGE.read_text(encoding="utf-8"))
    assert page.evaluate("overlapping()") == [], "no label lies on another"


def test_pictures_are_the_test_images() -> None:
    image = np.arange(28 * 28, dtype=np.uint32).reshape(1, 28, 28).astype(np.uint8)
    entry = {"index": 0, "label": 1, "prediction": 7, "confidence": 0.5}
    digit = pictures.digits([entry], image)[0]
    content = base64.b64decode(digit.source.partition(",")[2])
    shown = mpl_image.imread(io.BytesIO(content))
    assert (np.rint(shown[..., 3] * 255) == image[0]).all(), "a pixel's value is how dark it is"
