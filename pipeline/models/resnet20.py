"""ResNet-20: 16, 32 and 64 channels, three blocks a stage; 272,474 parameters for 10 classes."""

from torch import nn

from pipeline.models._residual import ResidualNetwork


def build(classes: int, channels: int) -> nn.Module:
    """Return the network with random weights from torch's generator."""
    return ResidualNetwork(widths=(16, 32, 64), blocks=3, classes=classes, channels=channels)
