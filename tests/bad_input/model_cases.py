"""Published models that are damaged or not what config.pbtxt says, and versions that do not exist."""

import hashlib
import json
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

import client
import export
from mnist.onnx_model import INPUT, OUTPUT
from serving import launch
from tests.bad_input.case import Bench, Case
from tests.support import TRITON
from tests.workloads.triton import MODEL

Damage = Callable[[Path], object]  # of a published version's directory
VERSION = f"{{root}}/storage/models/{MODEL}/1"
RESTORE = "is missing or damaged: remove version 1 or restore the file"


def launched(bench: Bench, *options: str) -> str:
    """The launcher's refusal; it must not get as far as starting Triton."""

    def start(*_arguments: object, **_options: object) -> None:
        raise AssertionError("Triton must not be started on this")

    bench.monkeypatch.setattr(subprocess, "Popen", start)
    return bench.refused(launch.main, f"--triton={TRITON}", *options)


def unlaunchable(name: str, damage: Damage, *expected: str) -> Case:
    def provoke(bench: Bench) -> str:
        damage(bench.copy("exported_storage", "models").models / MODEL / "1")
        return launched(bench)

    return Case(f"model {name}", provoke, expected)


def flipped(version: Path) -> None:
    """One bit of one weight."""
    content = bytearray((version / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (version / "model.onnx").write_bytes(content)


def truncated(version: Path) -> None:
    os.truncate(version / "model.onnx", 1 << 20)


def metadata(**changes: object) -> Damage:
    """metadata.json with other fields."""

    def damage(version: Path) -> None:
        path = version / "metadata.json"
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")

    return damage


def written(name: str, content: bytes) -> Damage:
    return lambda version: (version / name).write_bytes(content)


def removed(name: str) -> Damage:
    return lambda version: (version / name).unlink()


def checked(name: str, write: Callable[[Path, Bench], object]) -> Case:
    """The client compares what is served with predictions.npy; the server goes on with what it has loaded."""

    def provoke(bench: Bench) -> str:
        write(bench.copy("exported_storage", "data", "models").models / MODEL / "1" / "predictions.npy", bench)
        for constant, value in (("SINGLES", 1), ("CONCURRENCIES", (16,))):
            bench.monkeypatch.setattr(client, constant, value)
        return bench.refused(client.main, f"--endpoint={bench.server.triton.endpoint}", "--min-accuracy=0.1")

    return Case(f"model {name}", provoke, (f"{VERSION}/predictions.npy {RESTORE}",))


def with_another_input(version: Path, name: str = INPUT, side: int = 28, output: str = OUTPUT) -> None:
    """A valid model with a right sum, but another interface."""
    path = version / "model.onnx"
    graph = onnx.load(path)
    for node in graph.graph.node:
        node.input[:] = [name if one == INPUT else one for one in node.input]
        node.output[:] = [output if one == OUTPUT else one for one in node.output]
    graph.graph.input[0].name, graph.graph.output[0].name = name, output
    for dimension in graph.graph.input[0].type.tensor_type.shape.dim[2:]:
        dimension.dim_value = side
    del graph.graph.value_info[:]
    onnx.save(graph, path)
    metadata(sha256=hashlib.sha256(path.read_bytes()).hexdigest())(version)


def config(change: Callable[[str], str]) -> Damage:
    """Of the model's directory."""

    def damage(model: Path) -> None:
        path = model / "config.pbtxt"
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")

    return damage


# Models by name, as Triton itself meets them: each is a copy of the published one, then damaged.
UNSERVABLE: dict[str, Damage] = {
    "other_input": lambda model: with_another_input(model / "1", name="pixels"),
    "other_shape": lambda model: with_another_input(model / "1", side=32),
    "other_output": lambda model: with_another_input(model / "1", output="probabilities"),
    "other_config": config(lambda text: text.replace("dims: [ 1, 28, 28 ]", "dims: [ 1, 32, 32 ]")),
    "cut_config": config(lambda text: text[: len(text) // 2]),
}
INTERFACES = {
    "other_input": "/1/model.onnx has [('pixels', 1, 28, 28)], config.pbtxt says [('input', 1, 28, 28)]",
    "other_shape": "/1/model.onnx has [('input', 1, 32, 32)], config.pbtxt says [('input', 1, 28, 28)]",
    "other_output": "/1/model.onnx has [('probabilities', 10)], config.pbtxt says [('output', 10)]",
    "other_config": "/1/model.onnx has [('input', 1, 28, 28)], config.pbtxt says [('input', 1, 32, 32)]",
}


def unservable(name: str, *expected: str) -> Case:
    return Case(f"model with {name.replace('_', ' ')}", lambda bench: bench.refused_models()[name], (name, *expected))


def never_published(bench: Bench) -> str:
    bench.storage.root.mkdir()
    return launched(bench)


def version_that_does_not_exist(bench: Bench) -> str:
    bench.copy("exported_storage", "data", "checkpoints", "models")
    return bench.refused(export.main, "--served-version=7")


def outside(stage: str, run: Callable[..., str]) -> Case:
    """A name that would lead out of the model repository."""

    def provoke(bench: Bench) -> str:
        bench.copy("exported_storage", "data", "models")
        line = run(bench, "--model-name=../../outside")
        assert [path.name for path in bench.root.iterdir()] == ["storage"], "nothing is made elsewhere"
        return line

    name = "the model name is '../../outside': it must be letters, digits, _ and -"
    return Case(f"model name that leads out of the storage, for {stage}", provoke, (name,))


DIFFERS = (f"{VERSION}/model.onnx is damaged (SHA-256 differs", "remove version 1")
METADATA = (f"{VERSION}/metadata.json {RESTORE}",)
CASES = (
    unlaunchable("with a flipped bit", flipped, *DIFFERS),
    unlaunchable("truncated", truncated, *DIFFERS),
    unlaunchable("empty", written("model.onnx", b""), *DIFFERS),
    unlaunchable("missing", removed("model.onnx"), f"{VERSION}/model.onnx is missing: remove version 1 and run"),
    unlaunchable("without metadata", removed("metadata.json"), *METADATA),
    unlaunchable("with half of its metadata", written("metadata.json", b'{"accuracy": 0.9'), *METADATA),
    unlaunchable("with a list for metadata", written("metadata.json", b"[]"), *METADATA),
    unlaunchable("with metadata nested deeply", written("metadata.json", b"[" * 200_000), *METADATA),
    unlaunchable("with text for its accuracy", metadata(accuracy="high"), *METADATA),
    unlaunchable("with an accuracy that is no number", metadata(accuracy=float("nan")), *METADATA),
    unlaunchable("with more metadata than there are", metadata(more=1), *METADATA),
    checked("without predictions", lambda path, _: path.unlink()),
    checked("with empty predictions", lambda path, _: path.write_bytes(b"")),
    checked("with an archive for predictions", lambda path, _: path.write_bytes(b"PK\x03\x04")),
    checked("with damaged predictions", lambda path, _: path.write_bytes(b"\x93NUMPY damaged")),
    checked("with predictions of 11 digits", lambda path, _: np.save(path, np.full(200, 10, np.uint8))),
    checked("with code in its predictions", lambda path, bench: np.save(path, np.array([bench.malicious()]))),
    checked("with a pickle for predictions", lambda path, bench: path.write_bytes(pickle.dumps(bench.malicious()))),
    *(unservable(name, text, "export the model again") for name, text in INTERFACES.items()),
    unservable("cut_config", "failed to read text proto from", "cut_config/config.pbtxt"),
    Case(
        "model that was never published",
        never_published,
        (f"{{root}}/storage/models/{MODEL} has no published version: run the export stage",),
    ),
    Case(
        "model version that does not exist",
        version_that_does_not_exist,
        ("servedVersion 7 does not exist; published versions: 1",),
    ),
    outside("export", lambda bench, *options: bench.refused(export.main, *options)),
    outside("triton", launched),
)
