"""An alternative: MLServer (SeldonIO) with a runtime of our own around ONNX Runtime, as it brings none.

It runs in an environment of its own: see bench/environments/mlserver.txt.
"""

import os

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):  # type: ignore[misc]  # mlserver is not installed where types are checked
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["BENCH_THREADS"])
        path = self.settings.parameters.uri
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        pixels = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32, copy=False)
        logits = self.session.run(["output"], {"input": pixels})[0]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("output", logits)])
