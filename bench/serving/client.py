"""The asynchronous client, in a process of its own: the same for every server.

Requests are serialised beforehand, so that little of what is measured is the client: what it does then is what every
client of that protocol must do. A server's refusal ends the measuring.
"""

import asyncio
import gc
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import grpc
import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2

from bench.figures import percentiles
from bench.worker import Answer, serve

INFER = "/inference.GRPCInferenceService/ModelInfer"  # of the protocol that Triton, KServe and MLServer speak
WARM_UP = 0.25  # of the time measured, before it
LEAST = 20  # requests that are measured, whatever the time
TIMEOUT = 30.0

Pixels = npt.NDArray[np.float32]  # [B, 1, 28, 28]
Logits = npt.NDArray[np.float32]  # [B, 10]
Send = Callable[[], Awaitable[Any]]
Request = tuple[bytes, dict[str, str], Callable[[bytes], Logits]]  # body, headers, and how the answer is read


@dataclass(frozen=True)
class Target:
    """A served model.

    Attributes:
        protocol: grpc, raw (HTTP, the tensors' bytes) or json (HTTP).
        address: host:port, or the URL.
        model: Its name, for gRPC.
    """

    protocol: str
    address: str
    model: str


@asynccontextmanager
async def opened(target: Target, pixels: Pixels) -> AsyncIterator[tuple[Send, Callable[[Any], Logits]]]:
    """What sends one request, and what makes logits of its answer."""
    if target.protocol == "grpc":
        # Of several addresses, all are asked in turn.
        async with grpc.aio.insecure_channel(target.address, [("grpc.lb_policy_name", "round_robin")]) as channel:
            ask = channel.unary_unary(INFER, None, service_pb2.ModelInferResponse.FromString)
            content = message(target.model, pixels).SerializeToString()
            yield (lambda: ask(content, timeout=TIMEOUT)), _grpc_logits
        return
    body, headers, decode = PROTOCOLS[target.protocol](pixels)
    options = {"connector": aiohttp.TCPConnector(limit=0), "timeout": aiohttp.ClientTimeout(TIMEOUT)}
    async with aiohttp.ClientSession(**options, raise_for_status=True) as session:

        async def post() -> bytes:
            async with session.post(target.address, data=body, headers=headers) as response:
                content: bytes = await response.read()
                return content

        yield post, decode


def message(model: str, pixels: Pixels) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="input", datatype="FP32", shape=list(pixels.shape))
    request.outputs.add(name="output")
    request.raw_input_contents.append(pixels.tobytes())
    return request


def _grpc_logits(answer: Any) -> Logits:
    if answer.raw_output_contents:
        return _raw_logits(answer.raw_output_contents[0])
    return np.array(answer.outputs[0].contents.fp32_contents, np.float32).reshape(-1, 10)  # MLServer's way


def _raw_logits(answer: bytes) -> Logits:
    return np.frombuffer(answer, np.float32).reshape(-1, 10)


def _raw(pixels: Pixels) -> Request:
    return pixels.tobytes(), {"Content-Type": "application/octet-stream"}, _raw_logits


def _json(pixels: Pixels) -> Request:
    body = json.dumps({"instances": pixels.tolist()}).encode()
    return body, {"Content-Type": "application/json"}, lambda answer: np.array(json.loads(answer)["predictions"])


PROTOCOLS: dict[str, Callable[[Pixels], Request]] = {"raw": _raw, "json": _json}


async def closed_loop(send: Send, concurrency: int, seconds: float) -> Answer:
    """So many requests in flight at any time; each answer is followed by the next request."""
    latencies: list[float] = []
    answers, ended = 0, 0.0
    began = time.perf_counter() + WARM_UP * seconds

    async def worker() -> None:
        nonlocal answers, ended
        while not ended:
            sent = time.perf_counter()
            await send()
            answers, now = answers + 1, time.perf_counter()
            if now >= began and not ended:
                latencies.append(now - sent)
                if now >= began + seconds and len(latencies) >= LEAST:
                    ended = now

    await asyncio.gather(*(worker() for _ in range(concurrency)))
    rate = len(latencies) / (ended - began)
    return {"answers": answers, "requests_per_second": rate, **percentiles(latencies)}


async def open_loop(send: Send, rate: float, seconds: float) -> Answer:
    """Requests at random times (Poisson), whether the server keeps up or not: latencies count from these times."""
    latencies: list[float] = []
    chance, due = random.Random(1), time.perf_counter()
    began = due + WARM_UP * seconds
    end = began + seconds

    async def one(planned: float) -> None:
        await send()
        if planned >= began:
            latencies.append(time.perf_counter() - planned)

    async with asyncio.TaskGroup() as group:
        while (due := due + chance.expovariate(rate)) < end:
            pause = due - time.perf_counter()
            await asyncio.sleep(max(pause, 0))
            group.create_task(one(due))
    return {"requests_per_second": len(latencies) / seconds, **percentiles(latencies)}


async def _verified(target: Target, pixels: Pixels, expected: Logits | None, patience: float) -> Answer:
    """The largest difference of logits (0 where nothing is expected) once the server answers, or why it does not."""
    deadline = time.monotonic() + patience
    while True:
        try:
            async with opened(target, pixels) as (send, decode):
                logits = decode(await send())
            break
        except (grpc.aio.AioRpcError, aiohttp.ClientError) as error:
            if time.monotonic() > deadline:
                return {"unanswered": repr(error)}
            await asyncio.sleep(0.2)
    return {"difference": 0.0 if expected is None else float(np.abs(logits - expected).max())}


async def _measured(target: Target, pixels: Pixels, load: dict[str, float]) -> Answer:
    async with opened(target, pixels) as (send, _):
        if "rate" in load:
            return await open_loop(send, load["rate"], load["seconds"])
        return await closed_loop(send, int(load["concurrency"]), load["seconds"])


def answer(request: Answer) -> Answer:
    """Either `{"target", "batch", "pixels", "expected", "patience"}` or `{"target", "batch", "pixels", "load"}`."""
    target = Target(**request["target"])
    pixels = np.ascontiguousarray(np.load(request["pixels"], mmap_mode="r")[: request["batch"]])
    if "load" in request:
        gc.collect()
        gc.freeze()
        return asyncio.run(_measured(target, pixels, request["load"]))
    expected = np.load(request["expected"], mmap_mode="r")[: request["batch"]] if request["expected"] else None
    return asyncio.run(_verified(target, pixels, expected, request["patience"]))


if __name__ == "__main__":
    serve(answer)
