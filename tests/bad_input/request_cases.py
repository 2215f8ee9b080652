"""Requests that the real Triton must answer with an error, and go on serving."""

import json

import numpy as np

from tests.bad_input.case import Case
from tests.bad_input.server import IMAGE, IMAGE_BYTES, Request, Tensor
from tests.workloads.triton import MODEL

HUNDRED_MEGABYTES = 100 << 20


def asked(name: str, request: Request, *expected: str) -> Case:
    return Case(f"request {name}", lambda bench: bench.server.refused(request), expected)


def with_input(name: str, tensor: Tensor, *expected: str) -> Case:
    return asked(name, Request([tensor]), *expected)


def filled(value: float) -> Tensor:
    """An image whose last pixel is `value`."""
    pixels = np.zeros(IMAGE, np.float32)
    pixels[..., -1, -1] = value
    return Tensor(content=pixels.tobytes())


def of_batch(size: int) -> Tensor:
    return Tensor((size, *IMAGE[1:]), bytes(size * IMAGE_BYTES))


def posted(name: str, body: bytes, *expected: str, **headers: str) -> Case:
    return Case(f"HTTP request {name}", lambda bench: bench.server.posted(body, **headers), expected)


def posted_to(path: str, *expected: str) -> Case:
    return Case(f"HTTP request to {path}", lambda bench: bench.server.posted(json_request(), path), expected)


def json_request(shape: object = IMAGE, data: object = None) -> bytes:
    tensor = {"name": "input", "shape": shape, "datatype": "FP32", "data": [0.0] * 784 if data is None else data}
    return json.dumps({"inputs": [tensor]}).encode()


SHAPE = ("unexpected shape for input 'input'", "Expected [-1,1,28,28], got ")
TYPE = "but model 'resnet18_mnist' expects 'FP32'"
FINITE = "input 'input' holds NaN or infinity: send finite numbers"

BY_GRPC = (
    with_input("with another input name", Tensor(name="image"), "unexpected inference input 'image'", MODEL),
    with_input("with channels last", Tensor((1, 28, 28, 1)), *SHAPE, "[1,28,28,1]"),
    with_input("with flat images", Tensor((1, 784)), *SHAPE, "[1,784]"),
    with_input("without a batch dimension", Tensor((1, 28, 28)), *SHAPE, "[1,28,28]"),
    with_input("with a scalar", Tensor((), bytes(4)), "has no shape but model requires batch dimension"),
    with_input("with bytes", Tensor(content=bytes(784), datatype="UINT8"), "'UINT8'", TYPE),
    with_input("with doubles", Tensor(content=bytes(2 * IMAGE_BYTES), datatype="FP64"), "'FP64'", TYPE),
    with_input("with a type that is none", Tensor(datatype="FLOAT"), "data-type is", TYPE),
    with_input("with a batch of 17", of_batch(17), "batch-size must be <= 16"),
    with_input("with a batch of none", of_batch(0), "input byte size mismatch for input 'input'", "got 0"),
    with_input("with a negative batch", Tensor((-1, 1, 28, 28)), "input byte size mismatch", "got 3136"),
    with_input(
        "with a batch that overflows",
        Tensor((2**32, 1, 28, 28)),
        "input 'input' has the shape",
        "expected [B, 1, 28, 28]",
    ),
    with_input("with NaN", filled(float("nan")), FINITE),
    with_input("with infinity", filled(float("inf")), FINITE),
    with_input("with minus infinity", filled(float("-inf")), FINITE),
    with_input("of 100 MB in one batch", of_batch(HUNDRED_MEGABYTES // IMAGE_BYTES), "batch-size must be <= 16"),
    with_input("of 100 MB for one image", Tensor(content=bytes(HUNDRED_MEGABYTES)), "Expected 3136, got 104857600"),
    with_input("with fewer bytes than its shape", Tensor(content=bytes(100)), "Expected 3136, got 100"),
    with_input("with a byte more than its shape", Tensor(content=bytes(IMAGE_BYTES + 1)), "Expected 3136, got 3137"),
    asked("without input", Request([]), "expected 1 inputs but got 0", "missing required input(s) ['input']"),
    asked("with two inputs", Request([Tensor(), Tensor(name="more")]), "expected 1 inputs but got 2", "['more'"),
    asked("with its input twice", Request([Tensor(), Tensor()]), "input 'input' already exists in request"),
    asked("for another model", Request(model="other"), "unknown model: 'other' is not found"),
    asked("for a model elsewhere", Request(model="../outside"), "unknown model: '../outside' is not found"),
    asked("for another version", Request(version="7"), "'resnet18_mnist' version 7 is not found"),
    asked("for a version that is no number", Request(version="new"), "version string 'new'", "integral value > 0"),
    asked(
        "for another output", Request(outputs=["probabilities"]), "unexpected inference output 'probabilities'", MODEL
    ),
)
BY_HTTP = (
    posted("of garbage", b"{{{", "failed to parse the request JSON"),
    posted("of nothing", b"", "input byte size mismatch"),
    posted("of a list", b"[]", "Unable to parse 'inputs'"),
    posted("without inputs", b"{}", "Unable to parse 'inputs'"),
    posted("nested deeply", b'{"inputs":' + b"[" * 2000, "failed to parse the request JSON"),
    posted("with text for numbers", json_request(data=["black"] * 784), "Unable to parse 'data'"),
    posted("with a number too few", json_request(data=[0.0] * 783), "Shape does not match", "'data' field"),
    posted("with text for a shape", json_request(shape="one image"), "Unable to parse 'shape'"),
    posted("with a negative shape", json_request(shape=[-1, 1, 28, 28]), "Unable to parse 'shape'"),
    posted("with NaN", json_request(data=[float("nan")] * 784), FINITE),
    posted("with a number beyond FP32", json_request(data=[1e300] * 784), FINITE),
    posted("with a header that lies", b"{}", "inference header size", Inference_Header_Content_Length="1000"),
    posted_to("v2/models/other/infer", "unknown model: 'other' is not found"),
    posted_to("v2/models/..%2f..%2fother/infer", "is not found"),
)
CASES = (*BY_GRPC, *BY_HTTP)
