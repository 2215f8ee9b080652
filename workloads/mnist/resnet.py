"""ResNet-18 (He et al., 2015, https://arxiv.org/abs/1512.03385) with torchvision's names, shapes and initialisation.

torchvision's own would do: to import it takes as long as PyTorch again, in every stage that needs the model.
`tests/workloads/test_resnet.py` compares the two.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

LAYERS = ((64, 1), (128, 2), (256, 2), (512, 2))  # channels and the first block's stride; two blocks each


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut: float32 [B, I, H, W] → [B, O, ceil(H / stride), ceil(W / stride)]."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2: nn.Module = nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, maps: Tensor) -> Tensor:
        shortcut = maps if self.downsample is None else self.downsample(maps)
        hidden = functional.relu(self.bn1(self.conv1(maps)))
        return functional.relu(self.bn2(self.conv2(hidden)) + shortcut)


class ResNet18(nn.Module):
    """Images, float32 [B, channels, H, W] → logits, float32 [B, classes]."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        inputs = LAYERS[0][0]
        self.conv1 = nn.Conv2d(channels, inputs, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(BasicBlock(before, outputs, stride), BasicBlock(outputs, outputs, 1))
            for before, (outputs, stride) in zip((inputs, 64, 128, 256), LAYERS, strict=True)
        )
        self.fc = nn.Linear(LAYERS[-1][0], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        maps = self.maxpool(functional.relu(self.bn1(self.conv1(images))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        logits: Tensor = self.fc(torch.flatten(functional.adaptive_avg_pool2d(maps, 1), 1))
        return logits
