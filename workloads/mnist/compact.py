"""ResNet-18 as it is trained: the same function as torchvision's, with what 28 x 28 images leave to do.

On such images layer3 sees maps of 4 x 4 and 2 x 2, layer4 of 2 x 2 and 1 x 1. A 3 x 3 kernel's taps then mostly
multiply padding: the products over the positions that count are several times fewer, and as matrix products they run
near the processor's peak, where tiny convolutions do not. Weights have torchvision's names; `to_torchvision` gives them
its shapes, too.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnist.resnet import ResNet18

Weights = dict[str, Tensor]


class SmallMapConv(nn.Module):
    """A 3 x 3 convolution (padding 1, no bias) of maps of `side` x `side`, without the taps that see only padding.

    Takes float32 [B, side, side, I], gives float32 [B, m, m, O] with m = ceil(side / stride). The weight is
    [taps, taps, I, O]: the middle `taps` rows and columns of torchvision's [O, I, 3, 3], in another order.
    """

    def __init__(self, inputs: int, outputs: int, side: int, stride: int) -> None:
        super().__init__()
        self.spans = [_span(position, side, stride) for position in range((side + stride - 1) // stride)]
        self.first = min(tap for _, _, tap in self.spans)
        self.taps = max(tap + end - start for start, end, tap in self.spans) - self.first
        self.weight = nn.Parameter(torch.empty(self.taps, self.taps, inputs, outputs))

    def forward(self, maps: Tensor) -> Tensor:
        batch, outputs = len(maps), self.weight.shape[-1]
        products = []
        for top, bottom, row in self.spans:
            for left, right, column in self.spans:
                seen = maps[:, top:bottom, left:right].reshape(batch, -1)
                rows, columns = row - self.first, column - self.first
                weight = self.weight[rows : rows + bottom - top, columns : columns + right - left]
                products.append(seen @ weight.reshape(-1, outputs))
        return torch.stack(products, 1).view(batch, len(self.spans), len(self.spans), outputs)

    def compacted(self, weight: Tensor) -> Tensor:
        """torchvision's weight → ours."""
        last = self.first + self.taps
        return weight[:, :, self.first : last, self.first : last].permute(2, 3, 1, 0).contiguous()

    def expanded(self, weight: Tensor) -> Tensor:
        """Ours → torchvision's; taps that see only padding are zero."""
        whole = torch.zeros(weight.shape[3], weight.shape[2], 3, 3, dtype=weight.dtype)
        last = self.first + self.taps
        whole[:, :, self.first : last, self.first : last] = weight.permute(3, 2, 0, 1)
        return whole


def _span(position: int, side: int, stride: int) -> tuple[int, int, int]:
    """Of one output position in one direction: first and last (exclusive) input position, and the first one's tap."""
    begin = position * stride - 1
    start, end = max(0, begin), min(side, begin + 3)
    return start, end, start - begin


class Pointwise(nn.Module):
    """A 1 x 1 convolution: float32 [B, n, n, I] → [B, ceil(n / stride), ceil(n / stride), O]; the weight is [O, I]."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(outputs, inputs))

    def forward(self, maps: Tensor) -> Tensor:
        return functional.linear(maps[:, :: self.stride, :: self.stride], self.weight)

    def compacted(self, weight: Tensor) -> Tensor:
        return weight[:, :, 0, 0].contiguous()

    def expanded(self, weight: Tensor) -> Tensor:
        return weight[:, :, None, None].contiguous()


class ChannelsLastNorm(nn.BatchNorm1d):
    """Batch norm of maps with the channels last, [B, n, n, C]."""

    def forward(self, maps: Tensor) -> Tensor:
        normed: Tensor = super().forward(maps.reshape(-1, self.num_features))
        return normed.view(maps.shape)


class CompactBlock(nn.Module):
    """torchvision's BasicBlock on maps of `side` x `side`, channels last.

    Takes float32 [B, side, side, I], gives float32 [B, m, m, O] with m = ceil(side / stride).
    """

    def __init__(self, inputs: int, outputs: int, side: int, stride: int) -> None:
        super().__init__()
        self.conv1 = SmallMapConv(inputs, outputs, side, stride)
        self.bn1 = ChannelsLastNorm(outputs)
        self.conv2 = SmallMapConv(outputs, outputs, len(self.conv1.spans), 1)
        self.bn2 = ChannelsLastNorm(outputs)
        down = [Pointwise(inputs, outputs, stride), ChannelsLastNorm(outputs)] if stride > 1 else []
        self.downsample = nn.Sequential(*down)  # nothing in it: the identity

    def forward(self, maps: Tensor) -> Tensor:
        hidden = functional.relu(self.bn1(self.conv1(maps)), inplace=True)
        return functional.relu(self.bn2(self.conv2(hidden)) + self.downsample(maps))


class CompactResNet18(nn.Module):
    """Made of torchvision's model and its weights; takes and gives what that takes and gives.

    `channels_last` keeps maps in that memory layout throughout, for GPUs.

    Takes normalised images, float32 [B, 1, 28, 28]; gives logits, float32 [B, 10].
    """

    def __init__(self, model: ResNet18, channels_last: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1, self.maxpool = model.conv1, model.bn1, model.maxpool
        self.layer1, self.layer2, self.fc = model.layer1, model.layer2, model.fc
        self.layer3 = nn.Sequential(CompactBlock(128, 256, 4, 2), CompactBlock(256, 256, 2, 1))
        self.layer4 = nn.Sequential(CompactBlock(256, 512, 2, 2), CompactBlock(512, 512, 1, 1))
        self.load_torchvision(model.state_dict())
        self.conv1.to(memory_format=torch.channels_last)  # pooling is several times faster so
        self.channels_last = channels_last
        if channels_last:
            self.layer1.to(memory_format=torch.channels_last)
            self.layer2.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.bn1(self.conv1(images.to(memory_format=torch.channels_last)))
        # Pooling before the activation gives the same, with a quarter of the values to go through.
        maps = functional.relu(self.maxpool(maps), inplace=True)
        if not self.channels_last:
            maps = maps.contiguous()
        maps = self.layer2(self.layer1(maps)).permute(0, 2, 3, 1).contiguous()
        logits: Tensor = self.fc(self.layer4(self.layer3(maps)).flatten(1))
        return logits

    def load_torchvision(self, weights: Mapping[str, Tensor]) -> None:
        """Take over weights with torchvision's names and shapes."""
        layouts = self._layouts()
        self.load_state_dict(
            {name: layouts[name].compacted(value) if name in layouts else value for name, value in weights.items()}
        )

    def to_torchvision(self) -> Weights:
        """The weights with torchvision's names and shapes."""
        layouts = self._layouts()
        return {
            name: layouts[name].expanded(value) if name in layouts else value.contiguous()
            for name, value in ((name, value.cpu()) for name, value in self.state_dict().items())
        }

    def _layouts(self) -> dict[str, SmallMapConv | Pointwise]:
        return {
            f"{name}.weight": module
            for name, module in self.named_modules()
            if isinstance(module, SmallMapConv | Pointwise)
        }
