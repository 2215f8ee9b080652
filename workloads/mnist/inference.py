"""The gRPC client of the served model, and the measuring of its latency and throughput.

A request that finds no server (it was killed, or is being replaced) is sent again for a while: asking for logits
changes nothing, so a second time does no harm. What the server refuses, or does not answer in time, is an error.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
from tenacity import (
    AsyncRetrying,
    RetryError,
    Retrying,
    retry_if_exception,
    retry_if_exception_type,
    retry_if_result,
    stop_after_delay,
    wait_exponential,
    wait_random_exponential,
)
from tritonclient.utils import InferenceServerException

from mnist.errors import ServerError

INPUT, OUTPUT = "input", "output"

UNAVAILABLE = "StatusCode.UNAVAILABLE"  # no server there, or one that is ending
UNLOADED = "has no available versions"  # what an ending Triton says of a model that it has unloaded already
PATIENCE_SECONDS = 60.0
# https://grpc.github.io/grpc/core/group__grpc__arg__keys.html
CHANNEL = [
    # gRPC itself would wait up to two minutes before it looks for a server again,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # send all to the first of several addresses of one name (a headless Service has one a pod),
    ("grpc.lb_policy_name", "round_robin"),
    # and ask for them again after half a minute at the soonest.
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
]

Pixels = npt.NDArray[np.float32]  # [B, 1, 28, 28] in [0, 1]
Logits = npt.NDArray[np.float32]  # [B, 10]


class ServedModel:
    """A model behind Triton's gRPC endpoint.

    Args:
        endpoint: host:port; with dns:///host:port the requests go round all of the name's addresses.
        model: The model's name.
        timeout: Seconds one request may take.
        patience: Seconds to go on trying, with growing pauses, while no server is there.
    """

    def __init__(self, endpoint: str, model: str, timeout: float = 10.0, patience: float = PATIENCE_SECONDS) -> None:
        self.endpoint, self.model, self.timeout, self.patience = endpoint, model, timeout, patience
        self._client = grpc_client.InferenceServerClient(endpoint, channel_args=CHANNEL)

    def __enter__(self) -> "ServedModel":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def wait_ready(self, deadline: float) -> float:
        """Wait until the model answers; returns the seconds it took.

        Raises:
            ServerError: it is not ready within `deadline` seconds.
        """
        started = time.monotonic()
        retrying = Retrying(
            stop=stop_after_delay(deadline),
            wait=wait_exponential(multiplier=0.05, max=1),
            retry=retry_if_exception_type(InferenceServerException) | retry_if_result(lambda ready: not ready),
        )
        try:
            retrying(self._client.is_model_ready, self.model, client_timeout=self.timeout)
        except RetryError:
            raise ServerError(
                f"{self.model} at {self.endpoint} is not ready after {deadline:.0f} s: see Triton's log"
            ) from None
        return time.monotonic() - started

    def version(self) -> int:
        """The newest version that is served.

        Raises:
            ServerError: Triton does not know the model, or no server answers.
        """
        try:
            metadata = self._client.get_model_metadata(self.model, client_timeout=self.timeout)
        except InferenceServerException as error:
            raise ServerError(f"{self.model} at {self.endpoint}: {error.message()}") from None
        return max(int(version) for version in metadata.versions)

    def infer(self, pixels: Pixels) -> Logits:
        """Send one request: pixels in [0, 1], float32 [B, 1, 28, 28] with B up to 16, for logits, float32 [B, 10].

        Raises:
            ServerError: Triton answers with an error or not in time, or no server is there for `patience` seconds.
        """
        return self.ask(pixels).logits

    def ask(self, pixels: Pixels) -> "Answer":
        """As `infer`, with its errors, and says which version answered."""
        try:
            try:
                return _answer(self._send(pixels))
            except InferenceServerException as error:  # retrying costs time on the way: only where it is needed
                if not _is_unavailable(error):
                    raise
                return _answer(Retrying(**_retries(self.patience))(self._send, pixels))
        except InferenceServerException as error:
            raise ServerError(f"{self.model} at {self.endpoint}: {error.message()}") from None

    def _send(self, pixels: Pixels) -> grpc_client.InferResult:
        return self._client.infer(self.model, [_input(pixels)], outputs=[_output()], client_timeout=self.timeout)

    def infer_concurrently(self, requests: Sequence[Pixels], concurrency: int) -> "Load":
        """Send all requests with `concurrency` in flight at any time, from one asynchronous client.

        Raises:
            ServerError: one of them failed, as for `infer`; the others are given up.
        """
        try:
            return asyncio.run(self._load(requests, concurrency))
        except InferenceServerException as error:
            raise ServerError(f"{self.model} at {self.endpoint}: {error.message()}") from None

    async def _load(self, requests: Sequence[Pixels], concurrency: int) -> "Load":
        client = grpc_aio.InferenceServerClient(self.endpoint, channel_args=CHANNEL)
        outputs: list[Logits | None] = [None] * len(requests)
        latencies = np.zeros(len(requests))
        waiting = iter(range(len(requests)))

        async def send_once(pixels: Pixels) -> grpc_client.InferResult:
            return await client.infer(self.model, [_input(pixels)], outputs=[_output()], client_timeout=self.timeout)

        async def send(pixels: Pixels) -> grpc_client.InferResult:
            try:
                return await send_once(pixels)
            except InferenceServerException as error:
                if not _is_unavailable(error):
                    raise
                return await AsyncRetrying(**_retries(self.patience))(send_once, pixels)

        async def worker() -> None:
            for index in waiting:
                sent = time.perf_counter()
                result = await send(requests[index])
                latencies[index] = time.perf_counter() - sent
                outputs[index] = _answer(result).logits

        started = time.perf_counter()
        try:
            await _all_or_error([worker() for _ in range(concurrency)])
        finally:
            await client.close()
        seconds = time.perf_counter() - started
        return Load(np.concatenate([output for output in outputs if output is not None]), latencies, seconds)


@dataclass(frozen=True)
class Answer:
    """What came back from one request."""

    logits: Logits
    version: int  # of the model that gave it


@dataclass(frozen=True)
class Load:
    """What came back from a sequence of requests."""

    logits: Logits  # of all requests, in order
    latencies: npt.NDArray[np.float64]  # seconds [requests]
    seconds: float  # from the first request to the last answer

    def summary(self) -> dict[str, float]:
        """Latencies in milliseconds; throughput in requests and images per second."""
        milliseconds = self.latencies * 1e3
        p50, p90, p99 = np.percentile(milliseconds, (50, 90, 99))
        return {
            "requests": len(self.latencies),
            "p50_ms": round(float(p50), 3),
            "p90_ms": round(float(p90), 3),
            "p99_ms": round(float(p99), 3),
            "mean_ms": round(float(milliseconds.mean()), 3),
            "requests_per_second": round(len(self.latencies) / self.seconds, 1),
            "images_per_second": round(len(self.logits) / self.seconds, 1),
        }


def measure_one_by_one(requests: Sequence[Pixels], infer: Callable[[Pixels], Logits]) -> Load:
    """Send the requests one after the other."""
    outputs, latencies = [], []
    started = time.perf_counter()
    for pixels in requests:
        sent = time.perf_counter()
        outputs.append(infer(pixels))
        latencies.append(time.perf_counter() - sent)
    return Load(np.concatenate(outputs), np.array(latencies), time.perf_counter() - started)


def confidences(logits: Logits) -> npt.NDArray[np.float32]:
    """Softmax: probabilities [B, 10]."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


async def _all_or_error(workers: Sequence[Awaitable[None]]) -> None:
    tasks = [asyncio.ensure_future(worker) for worker in workers]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _input(pixels: Pixels) -> grpc_client.InferInput:
    tensor = grpc_client.InferInput(INPUT, list(pixels.shape), "FP32")
    tensor.set_data_from_numpy(pixels)
    return tensor


def _output() -> grpc_client.InferRequestedOutput:
    return grpc_client.InferRequestedOutput(OUTPUT)


def _answer(result: grpc_client.InferResult) -> Answer:
    logits = result.as_numpy(OUTPUT)
    if logits is None:
        raise ServerError(f"the server's answer has no tensor {OUTPUT}")
    return Answer(np.asarray(logits, dtype=np.float32), int(result.get_response().model_version))


def _is_unavailable(error: BaseException) -> bool:
    if not isinstance(error, InferenceServerException):
        return False
    return error.status() == UNAVAILABLE or UNLOADED in (error.message() or "")


def _retries(patience: float) -> dict[str, Any]:
    """How long, how often and after what to try again: exponential backoff with full jitter."""
    return {
        "stop": stop_after_delay(patience),
        "wait": wait_random_exponential(multiplier=0.1, max=2),
        "retry": retry_if_exception(_is_unavailable),
        "reraise": True,
    }
