"""Adam (Kingma & Ba, 2014) under a one-cycle schedule (Smith & Topin, 2017), by PyTorch's fused operation.

https://arxiv.org/abs/1412.6980, https://arxiv.org/abs/1708.07120. `torch.optim.Adam` and `OneCycleLR` do the same, bit
for bit (`tests/workloads/test_optimizer.py`), but load PyTorch's compiler when they are made: four seconds of each
training.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

EPSILON, SECOND_MOMENT = 1e-8, 0.999
# OneCycleLR's defaults: the share of steps that the rate rises; how far below the peak it begins, and ends below that.
RISE, START, END = 0.3, 25.0, 1e4
LEAST_MOMENTUM, MOST_MOMENTUM = 0.85, 0.95


class OneCycleAdam:
    """Changes the parameters by their gradients.

    Args:
        parameters: float32, on one device.
        peak: The highest learning rate.
        steps: In all.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], peak: float, steps: int) -> None:
        self.parameters = list(parameters)
        self.peak, self.steps = peak, steps
        self.step_number = 0
        self._means = [torch.zeros_like(parameter) for parameter in self.parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in self.parameters]
        # One for each: the fused operation counts for itself.
        self._counts = [torch.zeros((), device=parameter.device) for parameter in self.parameters]

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        rate, momentum = one_cycle(self.step_number, self.steps, self.peak)
        adam(
            [parameter.detach() for parameter in self.parameters],
            [_gradient(parameter) for parameter in self.parameters],
            self._means,
            self._squares,
            [],
            self._counts,
            fused=True,
            amsgrad=False,
            beta1=momentum,
            beta2=SECOND_MOMENT,
            lr=rate,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )
        self.step_number += 1

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step_number, "means": self._means, "squares": self._squares, "counts": self._counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Raises:
            ValueError: it is that of other parameters.
        """
        for ours, loaded in ((self._means, "means"), (self._squares, "squares"), (self._counts, "counts")):
            for target, value in zip(ours, state[loaded], strict=True):
                if target.shape != value.shape:
                    raise ValueError(f"{loaded} of the shape {list(value.shape)}, expected {list(target.shape)}")
                target.copy_(value)
        self.step_number = int(state["step"])


def one_cycle(step: int, steps: int, peak: float) -> tuple[float, float]:
    """Learning rate and momentum (Adam's first beta) of a step: cosines up to the peak and down, and the other way."""
    top = RISE * steps - 1
    start, end = peak / START, peak / START / END
    if step <= top:
        share = step / top
        return _cosine(start, peak, share), _cosine(MOST_MOMENTUM, LEAST_MOMENTUM, share)
    share = (step - top) / (steps - 1 - top)
    return _cosine(peak, end, share), _cosine(LEAST_MOMENTUM, MOST_MOMENTUM, share)


def _cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) / 2 * (1 + math.cos(math.pi * share))


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, "the loss depends on every parameter"
    return parameter.grad
