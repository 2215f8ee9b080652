"""ONNX Runtime in process, without any server: the limit of what can be served.

python -m bench.serving.inprocess MODEL PIXELS
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.figures import percentiles
from bench.worker import Answer, serve
from mnist.onnx_model import INPUT, OUTPUT, session

WARM_UP = 0.2  # of the time measured, before it


def main(model: Path, pixels: Path) -> None:
    images = np.load(pixels, mmap_mode="r")
    sessions = [session(model, 1)]

    def answer(request: Answer) -> Answer:
        """Every thread runs batches on a session of its own, one after the other."""
        batch = np.ascontiguousarray(images[: request["batch"]])
        while len(sessions) < request["threads"]:
            sessions.append(session(model, 1))
        with ThreadPoolExecutor(request["threads"]) as pool:
            began = time.perf_counter() + request["seconds"] * WARM_UP
            jobs = [pool.submit(_loop, one, batch, began, request["seconds"]) for one in sessions[: request["threads"]]]
            latencies = [seconds for job in jobs for seconds in job.result()]
        return {"requests_per_second": len(latencies) / request["seconds"], **percentiles(latencies)}

    def _loop(one: object, batch: npt.NDArray[np.float32], began: float, seconds: float) -> list[float]:
        latencies, now = [], time.perf_counter()
        while now < began + seconds:
            one.run([OUTPUT], {INPUT: batch})  # type: ignore[attr-defined]  # onnxruntime is not typed
            before, now = now, time.perf_counter()
            if before >= began:
                latencies.append(now - before)
        return latencies

    serve(answer)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
