"""The model: torchvision's ResNet-18 for one input channel and ten classes, and its normalisation."""

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from mnist.data import CLASSES, Images

MODEL_NAME = "resnet18"
# Mean and standard deviation of MNIST's training pixels in [0, 1], as in PyTorch's MNIST example.
MEAN, STD = 0.1307, 0.3081


def build_model() -> ResNet:
    """ResNet-18 (He et al., 2015, https://arxiv.org/abs/1512.03385) as torchvision builds it, for 1 x 28 x 28 images.

    Takes normalised images, float32 [B, 1, 28, 28]; gives logits, float32 [B, 10].
    """
    model = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=CLASSES)
    model.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's other layers
    return model


class ServedModel(nn.Module):
    """The model with its normalisation inside, so that clients send plain pixels.

    Takes pixels in [0, 1] (byte / 255), float32 [B, 1, 28, 28]; gives logits, float32 [B, 10].
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.model(normalise(pixels))
        return logits


def normalise(pixels: Tensor) -> Tensor:
    """Pixels in [0, 1] → mean 0, standard deviation 1 over MNIST's training set."""
    return (pixels - MEAN) / STD


def to_pixels(images: Images) -> Tensor:
    """Bytes [N, 28, 28] → pixels in [0, 1], float32 [N, 1, 28, 28]."""
    return torch.from_numpy(images).unsqueeze(1).float().div_(255)
