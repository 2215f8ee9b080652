"""The model: ResNet-18 for one input channel and ten classes, and its normalisation."""

import torch
from torch import Tensor, nn

from mnist.data import CLASSES, Images
from mnist.resnet import ResNet18

MODEL_NAME = "resnet18"
# Mean and standard deviation of MNIST's training pixels in [0, 1], as in PyTorch's MNIST example.
MEAN, STD = 0.1307, 0.3081


def build_model() -> ResNet18:
    """Takes normalised images, float32 [B, 1, 28, 28]; gives logits, float32 [B, 10]."""
    return ResNet18(channels=1, classes=CLASSES)


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
