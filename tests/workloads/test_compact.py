"""The model as it is trained is torchvision's: the same logits, the same gradients, the same weights after training.

In double precision: batch norm over few values enlarges float32's rounding until it hides what is compared.
"""

import pytest
import torch
from torch import Tensor, nn

from mnist.compact import CompactResNet18, Pointwise, SmallMapConv
from mnist.model import build_model

IMAGES = torch.randn(16, 1, 28, 28, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS = torch.arange(16) % 10


@pytest.fixture
def pair() -> tuple[nn.Module, CompactResNet18]:
    """torchvision's model, and ours with the same weights."""
    torch.manual_seed(3)
    plain = build_model().double()
    torch.manual_seed(3)
    return plain, CompactResNet18(build_model()).double()


def difference(left: Tensor, right: Tensor) -> float:
    """The largest, relative to the largest value."""
    return float((left - right).detach().abs().max() / right.detach().abs().max())


@pytest.mark.parametrize("training", [True, False])
def test_the_logits_are_torchvisions(pair: tuple[nn.Module, CompactResNet18], training: bool) -> None:
    plain, ours = (model.train(training) for model in pair)
    assert difference(ours(IMAGES), plain(IMAGES)) < 1e-9, "the same function, but for rounding"


def test_the_gradients_are_torchvisions(pair: tuple[nn.Module, CompactResNet18]) -> None:
    plain, ours = pair
    for model in pair:
        nn.functional.cross_entropy(model(IMAGES), LABELS).backward()  # type: ignore[no-untyped-call]
    layouts = {f"{name}.weight": module for name, module in ours.named_modules() if hasattr(module, "expanded")}
    found = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for name, parameter in plain.named_parameters():
        expected, got = parameter.grad, found[name]
        assert expected is not None and got is not None, name
        module = layouts.get(name)
        if isinstance(module, SmallMapConv | Pointwise):
            got = module.expanded(got)
        assert difference(got, expected) < 1e-9, f"{name} learns the same; what is left out has no gradient"


def test_after_some_steps_the_weights_are_torchvisions(pair: tuple[nn.Module, CompactResNet18]) -> None:
    """But for the taps that see only padding: there they stay as they were, ours are zero."""
    for model in pair:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(IMAGES), LABELS).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    plain, ours = pair
    trained = build_model().double()
    trained.load_state_dict(ours.to_torchvision())
    for model in (plain, trained):
        model.eval()
    assert difference(trained(IMAGES), plain(IMAGES)) < 1e-9, "put back into torchvision's shapes, it is the same model"


def test_weights_go_to_torchvisions_shapes_and_back_unchanged(pair: tuple[nn.Module, CompactResNet18]) -> None:
    plain, ours = pair
    there = ours.to_torchvision()
    assert {name: value.shape for name, value in there.items()} == {
        name: value.shape for name, value in plain.state_dict().items()
    }, "a checkpoint loads in torchvision"
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    ours.load_torchvision(there)
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items()), "bit for bit"


def test_the_weights_that_never_count_are_left_out(pair: tuple[nn.Module, CompactResNet18]) -> None:
    plain, ours = (sum(parameter.numel() for parameter in model.parameters()) for model in pair)
    assert (plain, ours) == (11_175_370, 4_228_554), "of 3 x 3 kernels on 1 x 1 maps, one tap in nine counts"


@pytest.mark.parametrize(("side", "stride"), [(1, 1), (2, 1), (2, 2), (3, 1), (4, 1), (4, 2), (5, 2), (7, 2)])
def test_a_small_map_convolution_is_a_convolution(side: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(side * 10 + stride)
    maps, weight = (torch.randn(shape, generator=generator) for shape in ((3, 5, side, side), (6, 5, 3, 3)))
    ours = SmallMapConv(5, 6, side, stride)
    with torch.no_grad():
        ours.weight.copy_(ours.compacted(weight))
    expected = nn.functional.conv2d(maps, weight, stride=stride, padding=1)
    got = ours(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    assert torch.allclose(got, expected, atol=1e-5), "for every side and stride"
