"""The model repository in an object store: a real S3 protocol, between our export and the real Triton."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import export
from mnist import data
from mnist.errors import ModelError
from mnist.inference import ServedModel
from mnist.object_store import location
from mnist.repository import ModelRepository
from mnist.storage import Storage
from tests.s3 import CREDENTIALS, running_s3
from tests.support import refusal, run_main, succeeded
from tests.workloads.triton import MODEL, running_triton

Copy = Callable[[Storage], Storage]
OPTIONS = ("--min-accuracy", 0.5, "--serving-cpus", 1)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """host:port."""
    with running_s3() as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture
def client(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return boto3.client("s3", endpoint_url=f"http://{server}")


@pytest.fixture
def bucket(client: Any, request: pytest.FixtureRequest) -> str:
    name = f"models-{abs(hash(request.node.name))}"
    client.create_bucket(Bucket=name)
    return name


def keys(client: Any, bucket: str) -> list[str]:
    return sorted(entry["Key"] for entry in client.list_objects_v2(Bucket=bucket).get("Contents", []))


def content(client: Any, bucket: str, key: str) -> bytes:
    return bytes(client.get_object(Bucket=bucket, Key=key)["Body"].read())


def publish_another(storage: Storage) -> int:
    """The next version, of another content."""
    repository = ModelRepository(storage.models, MODEL)
    staging = repository.staging()
    for path in repository.version_directory(1).iterdir():
        (staging / path.name).write_bytes(path.read_bytes())
    return repository.publish(staging, repository.metadata(1))


def expected_keys(storage: Storage) -> list[str]:
    repository = ModelRepository(storage.models, MODEL)
    files = [path for version in repository.versions() for path in repository.version_directory(version).iterdir()]
    return sorted(f"team/{MODEL}/{path.relative_to(repository.directory)}" for path in [*files, repository.config_path])


class Cut:
    """A way to the server that breaks after so many bytes."""

    def __init__(self, server: str, after: int) -> None:
        host, port = server.split(":")
        self._target, self._left = (host, int(port)), after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError), source, sink:
            while self._left > 0 and (chunk := source.recv(1 << 16)):
                self._left -= len(chunk)
                sink.sendall(chunk)
            for end in (source, sink):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()


def test_a_version_is_uploaded_whole_and_named_by_its_configuration(
    exported_storage: Storage, copy_of: Copy, client: Any, bucket: str, server: str
) -> None:
    storage, url = copy_of(exported_storage), f"s3://{server}/{bucket}/team"
    said = succeeded(run_main(export.main, "--storage", storage.root, *OPTIONS, "--model-repository", url))
    assert f"{url} has the same versions, uploaded: 1" in said, "the log says what went where"
    assert keys(client, bucket) == expected_keys(storage), "all files of the version, and nothing else"
    model = content(client, bucket, f"team/{MODEL}/1/model.onnx")
    assert model == (storage.models / MODEL / "1" / "model.onnx").read_bytes(), "byte for byte"
    config = content(client, bucket, f"team/{MODEL}/config.pbtxt").decode()
    assert "version_policy: { specific { versions: [ 1 ] } }" in config, "no version is served because it is there"

    again = succeeded(run_main(export.main, "--storage", storage.root, *OPTIONS, "--model-repository", url))
    assert "uploaded: none" in again, "what is there already is not sent again"


def test_an_upload_that_breaks_leaves_what_was_served_and_the_next_completes_it(
    exported_storage: Storage, copy_of: Copy, client: Any, bucket: str, server: str
) -> None:
    storage, url = copy_of(exported_storage), f"s3://{server}/{bucket}/team"
    arguments = ("--storage", storage.root, *OPTIONS, "--model-repository")
    succeeded(run_main(export.main, *arguments, url))
    assert publish_another(storage) == 2, "as the next export does"
    cut = Cut(server, after=3_000_000)  # in the middle of the model
    broken = refusal(run_main(export.main, *arguments, f"s3://{cut.address}/{bucket}/team"))
    cut.close()
    assert broken.startswith(f"s3://{cut.address}/{bucket}/team: "), "it says where"
    there = keys(client, bucket)
    assert f"team/{MODEL}/2/metadata.json" in there, "it did begin"
    assert f"team/{MODEL}/2/model.onnx" not in there, "and broke"
    config = content(client, bucket, f"team/{MODEL}/config.pbtxt").decode()
    assert "versions: [ 1 ]" in config, "Triton does not see the half of it"

    assert "uploaded: 2" in succeeded(run_main(export.main, *arguments, url)), "the next run sends the rest"
    assert keys(client, bucket) == expected_keys(storage), "now it is whole"
    assert "versions: [ 2 ]" in content(client, bucket, f"team/{MODEL}/config.pbtxt").decode(), "and served"


def test_a_version_that_is_not_kept_goes_from_the_store_too(
    exported_storage: Storage, copy_of: Copy, client: Any, bucket: str, server: str
) -> None:
    storage = copy_of(exported_storage)
    arguments = ("--storage", storage.root, *OPTIONS, "--model-repository", f"s3://{server}/{bucket}/team")
    client.put_object(Bucket=bucket, Key="team/notes.txt", Body=b"mine")
    succeeded(run_main(export.main, *arguments))
    publish_another(storage)
    succeeded(run_main(export.main, *arguments, "--keep-versions", 1))
    assert keys(client, bucket) == sorted([*expected_keys(storage), "team/notes.txt"]), "other people's objects stay"
    assert not [key for key in keys(client, bucket) if f"{MODEL}/1/" in key], "the older version is gone"


def test_triton_serves_what_is_in_the_store_alone(
    exported_storage: Storage, copy_of: Copy, bucket: str, server: str, tmp_path: Path
) -> None:
    storage, url = copy_of(exported_storage), f"s3://{server}/{bucket}/team"
    succeeded(run_main(export.main, "--storage", storage.root, *OPTIONS, "--model-repository", url))
    images, _ = data.load(storage.data, "t10k")
    expected = ModelRepository(storage.models, MODEL).predictions(1)
    empty = tmp_path / "no-storage"
    pixels = images[:, None].astype(np.float32) / np.float32(255)
    with (
        running_triton(empty, tmp_path / "log", f"--model-repository={url}") as triton,
        ServedModel(triton.endpoint, MODEL) as model,
    ):
        assert model.version() == 1, "the version that its configuration names"
        logits = np.concatenate([model.infer(batch) for batch in np.array_split(pixels, 20)])
    assert (logits.argmax(1) == expected).all(), "every prediction is PyTorch's"
    assert not empty.exists(), "no storage is needed beside it"


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://{server}/not-there/team", "NoSuchBucket"),
        ("s3://127.0.0.1:1/models", "Could not connect to the endpoint URL"),
        ("s3://models-without-path:port", "is no address: s3://bucket/path, or s3://https://host:port/bucket/path"),
    ],
)
def test_what_keeps_the_store_from_being_written_is_told_in_one_line(
    exported_storage: Storage, copy_of: Copy, server: str, url: str, reason: str
) -> None:
    storage = copy_of(exported_storage)
    address = url.format(server=server)
    said = refusal(run_main(export.main, "--storage", storage.root, *OPTIONS, "--model-repository", address))
    assert reason in said, "it says what is wrong"


def test_without_credentials_it_says_so(
    exported_storage: Storage, copy_of: Copy, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    storage = copy_of(exported_storage)
    arguments = ("--storage", storage.root, *OPTIONS, "--model-repository", f"s3://{server}/models/team")
    assert "Unable to locate credentials" in refusal(run_main(export.main, *arguments)), "and what is missing"


NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{1,20}[a-z0-9]", fullmatch=True)


@given(
    bucket=NAMES, parts=st.lists(NAMES, max_size=3), port=st.integers(1, 65535), scheme=st.sampled_from(["http", ""])
)
def test_every_address_of_tritons_is_read_as_triton_reads_it(
    bucket: str, parts: list[str], port: int, scheme: str
) -> None:
    path = "/".join([bucket, *parts])
    server = f"{scheme}://minio.example:{port}" if scheme else f"minio.example:{port}"
    assert location(f"s3://{path}") == (None, bucket, "/".join(parts)), "AWS's own"
    expected = (f"http://minio.example:{port}", bucket, "/".join(parts))
    assert location(f"s3://{server}/{path}") == expected, "another server's"


@pytest.mark.parametrize("url", ["", "s3://", "http://host/bucket", "s3:///path", "s3://UPPER/x"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ModelError, match="is no address"):
        location(url)
