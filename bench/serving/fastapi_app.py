"""An alternative: FastAPI and uvicorn around ONNX Runtime, tensors as raw bytes or as JSON.

    BENCH_MODELS=fp32=…/fp32.onnx,int8=… BENCH_THREADS=2 uvicorn --factory bench.serving.fastapi_app:make

The session is run in the event loop: handing it to a thread takes longer than it saves with a model this light.
"""

import os

import numpy as np
import numpy.typing as npt
from fastapi import FastAPI, Request, Response

from bench.serving.models import load_models


def make() -> FastAPI:
    models = load_models(os.environ["BENCH_MODELS"], int(os.environ["BENCH_THREADS"]))

    def logits(model: str, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return models[model](pixels.reshape(-1, 1, 28, 28))

    async def raw(model: str, request: Request) -> Response:
        pixels = np.frombuffer(await request.body(), np.float32)
        return Response(logits(model, pixels).tobytes(), media_type="application/octet-stream")

    async def from_json(model: str, request: Request) -> dict[str, list[list[float]]]:
        pixels = np.array((await request.json())["instances"], np.float32)
        return {"predictions": logits(model, pixels).tolist()}

    app = FastAPI()
    app.add_api_route("/raw/{model}", raw, methods=["POST"], response_class=Response)
    app.add_api_route("/json/{model}", from_json, methods=["POST"], response_model=None)
    return app
