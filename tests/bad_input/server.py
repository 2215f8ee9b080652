"""The real Triton, as the cases of bad requests see it."""

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from mnist.inference import Logits, Pixels, ServedModel
from tests.workloads.triton import MODEL, Triton

IMAGE = (1, 1, 28, 28)
IMAGE_BYTES = 4 * 28 * 28
SECONDS = 30.0


@dataclass(frozen=True)
class Tensor:
    """An input as a client may send it: nothing here has to fit together."""

    shape: Sequence[int] = IMAGE
    content: bytes = bytes(IMAGE_BYTES)
    name: str = "input"
    datatype: str = "FP32"


@dataclass(frozen=True)
class Request:
    """A gRPC request, right if nothing is said."""

    inputs: Sequence[Tensor] = field(default_factory=lambda: [Tensor()])
    model: str = MODEL
    version: str = ""
    outputs: Sequence[str] = ()

    def message(self) -> service_pb2.ModelInferRequest:
        message = service_pb2.ModelInferRequest(model_name=self.model, model_version=self.version)
        for tensor in self.inputs:
            message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            message.raw_input_contents.append(tensor.content)
        for name in self.outputs:
            message.outputs.add(name=name)
        return message


@dataclass(frozen=True)
class Server:
    triton: Triton
    pixels: Pixels  # a right request
    expected: Logits  # and its answer

    def refused(self, request: Request) -> str:
        """Send it by gRPC; what the server says against it."""
        with grpc.insecure_channel(self.triton.endpoint) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            with pytest.raises(grpc.RpcError) as caught:
                stub.ModelInfer(request.message(), timeout=SECONDS)
        assert caught.value.code().name in {"INVALID_ARGUMENT", "NOT_FOUND"}, "the client's fault, not the server's"
        return str(caught.value.details())

    def posted(self, body: bytes, path: str = f"v2/models/{MODEL}/infer", **headers: str) -> str:
        """Send it by HTTP; what the server says against it."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"{self.triton.http}/{path}", body, named)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=SECONDS)
        with caught.value as answer:
            assert answer.code >= 400, "an error"
            return str(json.load(answer)["error"])

    def check_it_serves(self) -> None:
        with ServedModel(self.triton.endpoint, MODEL, patience=0) as model:
            assert np.allclose(model.infer(self.pixels), self.expected, atol=1e-4), "others are still served, and right"
