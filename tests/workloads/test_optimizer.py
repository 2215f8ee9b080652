"""Our Adam under its one-cycle schedule is PyTorch's: the same weights, step by step."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from mnist.optimizer import OneCycleAdam, one_cycle

PEAK = 0.004


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def batches(count: int) -> list[torch.Tensor]:
    return list(torch.randn(count, 7, 6, generator=torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("steps", [2, 3, 7, 60])
def test_the_weights_are_pytorchs_after_every_step(model: nn.Sequential, steps: int) -> None:
    theirs = copy.deepcopy(model)
    ours = OneCycleAdam(model.parameters(), PEAK, steps)
    adam = torch.optim.Adam(theirs.parameters(), lr=PEAK, fused=True)
    schedule = OneCycleLR(adam, max_lr=PEAK, total_steps=steps)
    for number, inputs in enumerate(batches(steps - 1)):
        for network, optimizer in ((model, ours), (theirs, adam)):
            optimizer.zero_grad()
            network(inputs).square().sum().backward()
            optimizer.step()
        schedule.step()
        for mine, other in zip(model.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(mine, other), f"after step {number + 1} of {steps}, bit for bit"


@pytest.mark.parametrize("steps", [2, 5, 236, 2345])
def test_rate_and_momentum_are_pytorchs(steps: int) -> None:
    adam = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=PEAK)
    schedule = OneCycleLR(adam, max_lr=PEAK, total_steps=steps)
    for step in range(steps):
        [group] = adam.param_groups
        assert one_cycle(step, steps, PEAK) == pytest.approx((group["lr"], group["betas"][0]), rel=1e-12), step
        adam.step()
        if step < steps - 1:
            schedule.step()


def test_a_state_goes_on_where_it_was_taken(model: nn.Sequential) -> None:
    straight = OneCycleAdam(model.parameters(), PEAK, 20)
    inputs = batches(10)
    for number, batch in enumerate(inputs):
        if number == 5:
            weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(straight.state_dict())
        straight.zero_grad()
        model(batch).square().sum().backward()
        straight.step()
    again = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    again.load_state_dict(weights)
    resumed = OneCycleAdam(again.parameters(), PEAK, 20)
    resumed.load_state_dict(state)
    for batch in inputs[5:]:
        resumed.zero_grad()
        again(batch).square().sum().backward()
        resumed.step()
    for mine, other in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, other), "as if nothing had happened"


def test_a_state_of_other_parameters_is_refused(model: nn.Sequential) -> None:
    other = OneCycleAdam(nn.Linear(2, 2).parameters(), PEAK, 20).state_dict()
    with pytest.raises(ValueError, match="expected"):
        OneCycleAdam(model.parameters(), PEAK, 20).load_state_dict(other)
