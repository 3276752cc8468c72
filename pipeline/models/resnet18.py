"""ResNet-18 for 32 pixels: 3x3 stem, no max-pooling; 11,173,962 parameters for 10 classes."""

from torch import nn

from pipeline.models._residual import ResidualNetwork


def build(classes: int, channels: int) -> nn.Module:
    """Return the network with random weights from torch's generator."""
    return ResidualNetwork(widths=(64, 128, 256, 512), blocks=2, classes=classes, channels=channels)
