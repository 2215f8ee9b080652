"""What a training computes on: the CPUs, or an NVIDIA GPU in bfloat16."""

import os
from dataclasses import dataclass, field

import torch

from mnist.errors import AcceleratorError

ACCELERATORS = ("none", "nvidia")


@dataclass(frozen=True)
class Compute:
    """Where, in what precision and in what memory layout.

    Attributes:
        dtype: Of convolutions' and matrix products' inputs and outputs (autocast); weights, sums, batch norm's
            statistics and the loss stay float32.
        channels_last: [B, H, W, C] in memory, which tensor cores work on; oneDNN's convolutions on CPUs are no faster.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    @property
    def backend(self) -> str:
        """Of torch.distributed, for several workers."""
        return "nccl" if self.device.type == "cuda" else "gloo"

    def autocast(self) -> torch.autocast:
        """https://docs.pytorch.org/docs/stable/amp.html"""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32)

    def make_deterministic(self) -> None:
        """The same weights for the same seed; on a GPU only as far as CUDA's operations can."""
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS when CUDA starts
        # As use_deterministic_algorithms(True), which also imports PyTorch's compiler to tell it: 5 s.
        torch.set_deterministic_debug_mode("warn" if self.device.type == "cuda" else "error")
        # Nothing here reads memory before it is written; to fill it first takes a tenth of the training's time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # made at run time

    def __str__(self) -> str:
        if self.device.type != "cuda":
            return "CPUs"
        return f"{torch.cuda.get_device_name(self.device)}, {str(self.dtype).removeprefix('torch.')}"


def compute(accelerator: str, local_rank: int = 0) -> Compute:
    """For one of ACCELERATORS; with several workers on one machine, each takes the GPU of its rank there.

    Raises:
        AcceleratorError: there is no GPU for it that PyTorch can use.
    """
    if accelerator == "none":
        return Compute()
    if not torch.cuda.is_available():
        built = torch.version.cuda is not None
        cause = "PyTorch finds no GPU here" if built else "this PyTorch is built without CUDA"
        raise AcceleratorError(f"accelerator is nvidia, {cause}: install NVIDIA's driver, or set accelerator to none")
    if local_rank >= torch.cuda.device_count():
        raise AcceleratorError(
            f"accelerator is nvidia, worker {local_rank + 1} of this machine has no GPU of its own: "
            f"there are {torch.cuda.device_count()}, set trainWorkers to that"
        )
    torch.cuda.set_device(local_rank)
    return Compute(torch.device("cuda", local_rank), torch.bfloat16, channels_last=True)
