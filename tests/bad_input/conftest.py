"""One bench a case, and one Triton for all of them."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mnist import data, onnx_model
from mnist.storage import Storage
from tests.bad_input import model_cases
from tests.bad_input.case import Bench
from tests.bad_input.server import Server
from tests.support import TRITON, free_ports, run_script
from tests.workloads.triton import MODEL, running_triton


@pytest.fixture
def bench(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    place = Bench(tmp_path, request, monkeypatch)
    yield place
    place.clear()  # 90 MB for a case with a model


@pytest.fixture(scope="package")
def server(exported_storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    images, _ = data.load(exported_storage.data, "t10k")
    pixels = images[:3, None].astype(np.float32) / np.float32(255)
    expected = onnx_model.predict(onnx_model.session(exported_storage.models / MODEL / "1" / "model.onnx", 1), pixels)
    with running_triton(exported_storage.root, tmp_path_factory.mktemp("triton") / "log") as triton:
        yield Server(triton, pixels, expected)


@pytest.fixture(scope="package")
def refused_models(exported_storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What Triton says of each of the models it cannot serve, by model; all of them in one start."""
    root = tmp_path_factory.mktemp("refused") / "storage"
    for name, damage in model_cases.UNSERVABLE.items():
        shutil.copytree(exported_storage.models / MODEL, root / "models" / name)
        config = root / "models" / name / "config.pbtxt"
        config.write_text(config.read_text(encoding="utf-8").replace(MODEL, name), encoding="utf-8")
        damage(root / "models" / name)
    grpc, http, metrics = free_ports(3)
    ports = (f"--grpc-port={grpc}", f"--http-port={http}", f"--metrics-port={metrics}")
    model = f"--model-name={next(iter(model_cases.UNSERVABLE))}"
    ended = run_script(
        "serving/launch.py", f"--storage={root}", f"--triton={TRITON}", "--host=127.0.0.1", *ports, model
    )
    assert ended.code == 1, f"a server without its model is no server: {ended.out}{ended.err}"
    yield {name: _line_about(name, ended.out + ended.err) for name in model_cases.UNSERVABLE}
    shutil.rmtree(root)


def _line_about(model: str, log: str) -> str:
    """Triton names the directory it could not read, or the model it could not load."""
    lines = [
        line for line in log.splitlines() if re.search(rf"failed.*(/{model}/config\.pbtxt|'{model}' version)", line)
    ]
    assert len(lines) == 1, f"Triton says once what is wrong with {model}: {log}"
    return lines[0]
