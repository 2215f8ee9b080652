"""An alternative: a plain grpc.aio server around ONNX Runtime, or around nothing.

    python -m bench.serving.aio_server ADDRESS THREADS name=path,…     (no models: a no-op)

It speaks Triton's protocol, so that the same client asks it.
"""

import asyncio
import sys
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from bench.serving.models import load_models

SERVICE = "inference.GRPCInferenceService"


async def main(address: str, threads: int, named: str) -> None:
    models = load_models(named, threads) if named else {}

    async def infer(request: Any, context: Any) -> Any:
        pixels = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(-1, 1, 28, 28)
        run = models.get(request.model_name)
        logits = run(pixels) if run else np.zeros((len(pixels), 10), np.float32)
        response = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1")
        response.outputs.add(name="output", datatype="FP32", shape=list(logits.shape))
        response.raw_output_contents.append(logits.tobytes())
        return response

    handler = grpc.unary_unary_rpc_method_handler(
        infer, service_pb2.ModelInferRequest.FromString, service_pb2.ModelInferResponse.SerializeToString
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"ModelInfer": handler}),))
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else ""))
