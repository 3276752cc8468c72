"""T5 for two cores: 2 + 2 blocks, 128 wide; 917,504 weights without the embedding."""

from torch import nn

from pipeline.models import _t5


def build(classes: int, channels: int) -> nn.Module:
    """Return the network with random weights from torch's generator."""
    return _t5.build(channels, classes=classes, width=128, head=32, heads=4, wide=512, deep=2)
