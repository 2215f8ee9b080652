"""The pages on clients, run as they stand against a real Triton."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mnist.repository import ModelRepository
from mnist.storage import Storage
from tests.docs.pages import blocks_to_run, run
from tests.support import ROOT
from tests.workloads.triton import MODEL, Triton, running_triton


@pytest.fixture(scope="module")
def triton(exported_storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with running_triton(exported_storage.root, tmp_path_factory.mktemp("triton") / "log") as server:
        yield server


@pytest.fixture
def directory(exported_storage: Storage, tmp_path: Path) -> Path:
    """What a reader has in the project's directory, as far as the pages use it."""
    for name in (".venv", "workloads"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "local").symlink_to(exported_storage.root)
    return tmp_path


def test_the_page_on_python_clients_works_as_it_stands(
    directory: Path, triton: Triton, exported_storage: Storage
) -> None:
    printed = run(blocks_to_run("docs/how-to/python-client.md"), directory, {"ENDPOINT": triton.endpoint})
    repository = ModelRepository(exported_storage.models, MODEL)
    digit, accuracy = repository.predictions(1)[0], repository.metadata(1).accuracy
    assert printed.startswith(f"{digit} with "), f"the digit that PyTorch sees: {printed}"
    assert "says version 1" in printed, "and who says so"
    assert f"accuracy {accuracy:.4f}" in printed, f"the whole test set, served: {printed}"


def test_the_page_on_curl_works_as_it_stands(directory: Path, triton: Triton, exported_storage: Storage) -> None:
    endpoint = triton.http.removeprefix("http://")
    printed = run(blocks_to_run("docs/how-to/http-client.md"), directory, {"ENDPOINT": endpoint})
    digit = str(ModelRepository(exported_storage.models, MODEL).predictions(1)[0])
    answers = re.findall(r"(?:^|})(\d)$", printed, re.MULTILINE)  # JSON ends without a line's end
    assert answers == [digit, digit], f"by JSON and by bytes, what PyTorch sees: {printed}"
    assert '"shape":[2,10]' in printed, "two images in a request"
