"""Export one checkpoint in three ways; a process of its own, as PyTorch takes seconds to import.

    python -m bench.models STORAGE DIRECTORY

DIRECTORY/unfolded.onnx    as torchvision builds it, with the normalisation before it
          fp32.onnx        what this project publishes
          int8.onnx        what it publishes with `precision: int8`
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from bench.prepared import EXPORTS, Exports
from mnist import checkpoint, data, onnx_model, quantization, training
from mnist.cpus import available_cpus
from mnist.folding import FoldedModel
from mnist.model import ServedModel, build_model, to_pixels
from mnist.storage import Storage


def main(storage: Storage, exports: Exports) -> None:
    torch.set_num_threads(available_cpus())
    model = build_model()
    model.load_state_dict(checkpoint.load(storage.best_model).model)
    exports.directory.mkdir(parents=True, exist_ok=True)
    infos = {
        "unfolded": onnx_model.export_onnx(ServedModel(model), exports.model("unfolded")),
        "fp32": onnx_model.export_onnx(FoldedModel(model), exports.model("fp32")),
    }
    calibration = to_pixels(data.load(storage.data, "train")[0][: quantization.CALIBRATION_IMAGES]).numpy()
    infos["int8"] = quantization.quantise(exports.model("fp32"), exports.model("int8"), calibration)
    images, labels = data.load(storage.data, "t10k")
    pixels = to_pixels(images)
    np.save(exports.pixels, pixels.numpy())
    reference = training.predict(ServedModel(model).eval(), pixels)
    report = {}
    for name in EXPORTS:
        logits = onnx_model.predict(onnx_model.session(exports.model(name), available_cpus()), pixels.numpy())
        np.save(exports.logits(name), logits)
        accuracy = float((logits.argmax(1) == labels).mean())
        info = infos[name]
        report[name] = {
            **{"bytes": info.bytes, "nodes": info.nodes, "accuracy": accuracy},
            **onnx_model.compare(logits, reference),
        }
    exports.report.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(Storage(Path(sys.argv[1])), Exports(Path(sys.argv[2])))
