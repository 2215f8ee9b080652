"""Several processes that train one model: PyTorch's DistributedDataParallel, started by torchrun.

Each takes its share of every batch, gradients are averaged over all, and one of them leads: it alone writes, tells and
evaluates. The batch, and with it the learning, is the same for any number of workers; batch norm sees its share alone.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

TOLD = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
TIMEOUT = timedelta(minutes=5)  # of a collective operation: the others wait for the leader's evaluation


@dataclass(frozen=True)
class Workers:
    """This process among those that train."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1  # on this machine, or in this pod

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """What of a batch's indices, int64 [B], is this worker's; every index is one worker's."""
        return batch[self.rank :: self.count]

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model, averaging its gradients over all workers when they are computed."""
        return DistributedDataParallel(model) if self.count > 1 else model

    def total(self, values: Tensor) -> Tensor:
        """The sum of all workers' values."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether it is so for one of them; all get the same answer, by way of the device."""
        return bool(self.total(torch.tensor(float(flag), device=device)) > 0)


def workers() -> Workers:
    """As torchrun tells each process it starts: https://docs.pytorch.org/docs/stable/elastic/run.html"""
    return Workers(*(int(os.environ.get(name) or least) for name, least in TOLD.items()))


@contextlib.contextmanager
def joined(found: Workers, backend: str) -> Iterator[None]:
    """Work together with the others, if there are any, for as long as the block lasts.

    Args:
        backend: gloo for CPUs, nccl for GPUs.
    """
    if found.count == 1:
        yield
        return
    distributed.init_process_group(backend, timeout=TIMEOUT)
    try:
        yield
    finally:
        distributed.destroy_process_group()
