"""Triton's management endpoints are off, whatever header a caller sends; what serving needs is on."""

import http.client
import json
import re
import socket
import struct
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.grpc as grpc_client
from tritonclient.utils import InferenceServerException

from mnist.inference import ServedModel
from mnist.storage import Storage
from tests.workloads.triton import MODEL, Triton, running_triton

GrpcCall = Callable[[Any], Any]
OFF_OVER_GRPC: dict[str, GrpcCall] = {
    "list the models": lambda client: client.get_model_repository_index(),
    "load a model": lambda client: client.load_model(MODEL),
    "unload a model": lambda client: client.unload_model(MODEL),
    "read the trace settings": lambda client: client.get_trace_settings(),
    "read a model's trace settings": lambda client: client.get_trace_settings(MODEL),
    "trace": lambda client: client.update_trace_settings(
        settings={"trace_file": "/nowhere/x", "trace_level": ["TENSORS"]}
    ),
    "read the log settings": lambda client: client.get_log_settings(),
    "log elsewhere": lambda client: client.update_log_settings({"log_file": "/nowhere/x"}),
    "list shared memory": lambda client: client.get_system_shared_memory_status(),
    "register shared memory": lambda client: client.register_system_shared_memory("x", "/x", 8),
    "unregister shared memory": lambda client: client.unregister_system_shared_memory(),
    "list CUDA memory": lambda client: client.get_cuda_shared_memory_status(),
    "register CUDA memory": lambda client: client.register_cuda_shared_memory("x", b"0" * 64, 0, 8),
    "unregister CUDA memory": lambda client: client.unregister_cuda_shared_memory(),
}
OFF_OVER_HTTP = (
    ("POST", "repository/index"),
    ("POST", f"repository/models/{MODEL}/load"),
    ("POST", f"repository/models/{MODEL}/unload"),
    *((method, path) for method in ("GET", "POST") for path in ("trace/setting", f"models/{MODEL}/trace/setting")),
    *((method, "logging") for method in ("GET", "POST")),
    *(
        request
        for kind in ("systemsharedmemory", "cudasharedmemory")
        for request in (
            ("GET", f"{kind}/status"),
            ("POST", f"{kind}/region/x/register"),
            ("POST", f"{kind}/unregister"),
        )
    ),
)
ON_OVER_HTTP = (
    "",
    "health/live",
    "health/ready",
    *(f"models/{MODEL}{of}" for of in ("", "/ready", "/config", "/stats")),
)
INDEX = "/inference.GRPCInferenceService/RepositoryIndex"
GRPC_PREFIX = "triton-grpc-protocol-"  # Triton puts it before the name of the header it asks for
DATA, HEADERS, RESET, SETTINGS, GOAWAY = 0, 1, 3, 4, 7  # HTTP/2's frames
END_STREAM = 1


@pytest.fixture(scope="module")
def triton(exported_storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with running_triton(exported_storage.root, tmp_path_factory.mktemp("triton") / "log") as server:
        yield server


@pytest.fixture
def client(triton: Triton) -> Iterator[Any]:
    with grpc_client.InferenceServerClient(triton.endpoint) as made:
        yield made


def header(triton: Triton, protocol: str) -> tuple[str, str]:
    """The header that opens what is off: everybody on the machine can read it in the process list."""
    lines = [" ".join(process.cmdline()) for process in triton.family()]
    found = {match for line in lines for match in re.findall(rf"--{protocol}-restricted-\w+=[\w,-]+:(\S+)=(\S+)", line)}
    assert len(found) == 1, f"tritonserver must be told what is off over {protocol}: {lines}"
    name, value = found.pop()
    return name, value


def status(triton: Triton, method: str, path: str) -> tuple[int, str]:
    body = b"{}" if method == "POST" else None
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"{triton.http}/v2/{path}".rstrip("/"), method=method, data=body), timeout=10
        ) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def raw_grpc(endpoint: str, method: str, *extra: tuple[str, str]) -> dict[int, bytes]:
    """Call a method in frames made by hand, with headers that no client library would send; the answer's frames."""
    given = {":method": "POST", ":scheme": "http", ":path": method, ":authority": "triton", "te": "trailers"}
    pairs = [*given.items(), ("content-type", "application/grpc"), *extra]
    literals = [bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in pairs]
    host, _, port = endpoint.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection, connection.makefile("rb") as answer:
        connection.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(SETTINGS, 0, 0, b"")
            + frame(HEADERS, 4, 1, b"".join(literals))
            + frame(DATA, END_STREAM, 1, bytes(5))  # an empty message
        )
        frames: dict[int, bytes] = {}
        while len(head := answer.read(9)) == 9:
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            payload = answer.read(int.from_bytes(head[:3], "big"))
            if stream == 1 or kind == GOAWAY:
                frames[kind] = frames.get(kind, b"") + payload
            if kind in (RESET, GOAWAY) or (kind == HEADERS and flags & END_STREAM):
                break
        return frames


def raw_http(triton: Triton, *lines: str) -> str:
    """Ask for the models with these header lines as they are; the answer's first line, "" where it hangs up."""
    address = triton.http.removeprefix("http://")
    host, _, port = address.partition(":")
    request = ["POST /v2/repository/index HTTP/1.1", f"Host: {address}", *lines, "Content-Length: 0"]
    with socket.create_connection((host, int(port)), timeout=10) as connection, connection.makefile("rb") as answer:
        connection.sendall("\r\n".join([*request, "Connection: close", "", ""]).encode())
        try:
            return answer.readline().decode().strip()
        except ConnectionResetError:
            return ""


@pytest.mark.parametrize("what", OFF_OVER_GRPC)
def test_over_grpc_nobody_can(client: Any, what: str) -> None:
    with pytest.raises(InferenceServerException, match="restricted"):
        OFF_OVER_GRPC[what](client)


@pytest.mark.parametrize(("method", "path"), OFF_OVER_HTTP)
def test_over_http_it_is_forbidden_to(triton: Triton, method: str, path: str) -> None:
    code, body = status(triton, method, path)
    assert code == 403, f"forbidden, not only refused for another reason: {code} {body}"


def test_what_serving_needs_answers_over_grpc(triton: Triton, client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(MODEL), "health"
    assert client.get_server_metadata().version, "metadata"
    assert client.get_model_metadata(MODEL).platform == "onnxruntime_onnx", "a model's metadata"
    assert client.get_model_config(MODEL).config.name == MODEL, "its configuration"
    assert client.get_inference_statistics(MODEL).model_stats[0].name == MODEL, "its statistics"
    with ServedModel(triton.endpoint, MODEL) as model:
        assert model.infer(np.zeros((2, 1, 28, 28), np.float32)).shape == (2, 10), "inference"


@pytest.mark.parametrize("path", ON_OVER_HTTP)
def test_what_serving_needs_answers_over_http(triton: Triton, path: str) -> None:
    assert status(triton, "GET", path)[0] == 200, "serving and looking are not management"


def test_inference_answers_over_http(triton: Triton) -> None:
    tensor = {"name": "input", "shape": [1, 1, 28, 28], "datatype": "FP32", "data": [0.0] * 784}
    request = urllib.request.Request(
        f"{triton.http}/v2/models/{MODEL}/infer", json.dumps({"inputs": [tensor]}).encode()
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        assert json.load(response)["outputs"][0]["shape"] == [1, 10], "ten logits"


def test_it_listens_on_the_address_it_is_told_alone(triton: Triton) -> None:
    connections = [one for process in triton.family() for one in process.net_connections("inet")]
    listening = {one.laddr.ip.removeprefix("::ffff:") for one in connections if one.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}, "stack local serves its own machine, on every port"


def test_the_header_that_would_open_grpc_is_refused_by_the_client_library(triton: Triton) -> None:
    name, value = header(triton, "grpc")
    with (
        grpc_client.InferenceServerClient(triton.endpoint) as client,
        pytest.raises(InferenceServerException, match="Invalid metadata"),
    ):
        client.get_model_repository_index(headers={GRPC_PREFIX + name: value})


def test_the_header_that_would_open_grpc_does_not_arrive_in_frames_made_by_hand(triton: Triton) -> None:
    live = raw_grpc(triton.endpoint, "/inference.GRPCInferenceService/ServerLive")
    assert DATA in live, f"so that the refusals below are not for bad frames: {live}"
    assert b"restricted" in raw_grpc(triton.endpoint, INDEX)[HEADERS], "the method asked for is off"
    name, value = header(triton, "grpc")
    for spelling in (name, name.upper()):
        answer = raw_grpc(triton.endpoint, INDEX, (GRPC_PREFIX + spelling, value))
        assert DATA not in answer, f"no models must be listed: {answer}"
        assert RESET in answer or GOAWAY in answer, f"the call must end before Triton sees it: {answer}"


def test_the_header_that_would_open_http_is_refused_by_the_client_library(triton: Triton) -> None:
    connection = http.client.HTTPConnection(triton.http.removeprefix("http://"), timeout=10)
    name, value = header(triton, "http")
    with pytest.raises(ValueError, match="Invalid header name"):
        connection.request("POST", "/v2/repository/index", headers={name: value})
    connection.close()


def test_the_header_that_would_open_http_does_not_arrive_in_any_spelling(triton: Triton) -> None:
    name, value = header(triton, "http")
    folded = name.replace(":", "\r\n :")
    spellings = [name, f" {name}", f'"{name}"', f":{name}", folded, *(name.replace(":", other) for other in "\\;\t\0 ")]
    spellings += [name.replace(":", escape) for escape in ("%3a", "\\:", "::", ":\r\n ", "：", "&colon;")]
    for spelling in spellings:
        answer = raw_http(triton, f"{spelling}: {value}")
        assert answer in ("HTTP/1.1 403 Forbidden", "HTTP/1.1 400 Bad Request", ""), f"{spelling!r}: {answer}"
