"""Our ResNet-18 is torchvision's: names, shapes, logits, gradients, and how it starts."""

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from mnist.model import build_model

IMAGES = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(8)


def torchvisions() -> ResNet:
    model = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=10)
    model.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return model


def test_a_checkpoint_of_ours_loads_in_torchvision_and_the_other_way() -> None:
    ours, theirs = build_model(), torchvisions()
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict()), "in the same order, too"


def test_logits_and_gradients_are_torchvisions() -> None:
    ours, theirs = build_model(), torchvisions()
    theirs.load_state_dict(ours.state_dict())
    for training in (True, False):
        assert torch.equal(ours.train(training)(IMAGES), theirs.train(training)(IMAGES)), f"training: {training}"
    for model in (ours, theirs):
        nn.functional.cross_entropy(model.train()(IMAGES), LABELS).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None and torch.equal(mine.grad, _there(other.grad)), name


def test_it_starts_as_torchvisions_does() -> None:
    """The same distributions; the numbers drawn differ, as theirs begins with three channels."""
    ours, theirs = build_model().state_dict(), torchvisions().state_dict()
    for name, value in ours.items():
        if value.dtype == torch.float32 and value.numel() > 20_000:
            assert abs(float(value.std() / theirs[name].std()) - 1) < 0.05, f"{name} is spread alike"
        elif "bn" in name or "downsample.1" in name:
            assert torch.equal(value, theirs[name]), f"{name} starts alike"


def _there(gradient: Tensor | None) -> Tensor:
    assert gradient is not None, "the loss depends on it"
    return gradient
