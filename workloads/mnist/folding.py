"""The model as it is exported: the same function in fewer operations and a third of the weights."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mnist.model import MEAN, STD
from mnist.resnet import BasicBlock, ResNet18


class FoldedModel(nn.Module):
    """Pixels in [0, 1], float32 [B, 1, 28, 28] → logits, float32 [B, 10]; for inference alone.

    - Batch norms are folded into the convolutions before them (Jacob et al., 2017, https://arxiv.org/abs/1712.05877),
      and the pixels' standard deviation into the first one. (Their mean is subtracted: what torchvision's model pads
      with is 0 after that.)
    - layer4's kernels lose the taps that see only padding: its maps are 2 x 2 and 1 x 1.
    """

    def __init__(self, model: ResNet18) -> None:
        super().__init__()
        model = copy.deepcopy(model).eval()
        self.first = _fused(model.conv1, model.bn1)
        with torch.no_grad():
            self.first.weight /= STD
        self.maxpool = model.maxpool
        blocks = [block for layer in (model.layer1, model.layer2, model.layer3) for block in layer]
        entry, last = model.layer4
        self.blocks = nn.Sequential(
            *(_folded(block) for block in blocks),
            _without_dead_taps(_folded(entry)),
            _without_dead_taps(_folded(last)),
        )
        self.fc = model.fc

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.maxpool(functional.relu(self.first(pixels - MEAN)))
        logits: Tensor = self.fc(self.blocks(maps).flatten(1))
        return logits


def _fused(conv: nn.Module, norm: nn.Module) -> nn.Conv2d:
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d), "a convolution and its batch norm"
    fused: nn.Conv2d = fuse_conv_bn_eval(conv, norm)
    return fused


def _folded(block: nn.Module) -> BasicBlock:
    assert isinstance(block, BasicBlock), "ResNet-18 is made of them"
    block.conv1, block.bn1 = _fused(block.conv1, block.bn1), nn.Identity()
    block.conv2, block.bn2 = _fused(block.conv2, block.bn2), nn.Identity()
    if block.downsample is not None:
        block.downsample = nn.Sequential(_fused(block.downsample[0], block.downsample[1]))
    return block


def _without_dead_taps(block: BasicBlock) -> BasicBlock:
    """For a block whose output is 1 x 1: from 2 x 2 maps the first convolution sees the taps from the middle on."""
    side = 2 if block.stride > 1 else 1
    block.conv1, block.conv2 = _cut(block.conv1, side), _cut(block.conv2, 1)
    return block


def _cut(conv: nn.Conv2d, side: int) -> nn.Conv2d:
    small = nn.Conv2d(conv.in_channels, conv.out_channels, kernel_size=side)
    assert small.bias is not None and conv.bias is not None
    with torch.no_grad():
        small.weight.copy_(conv.weight[:, :, 1 : 1 + side, 1 : 1 + side])
        small.bias.copy_(conv.bias)
    return small
