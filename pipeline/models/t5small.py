"""T5-small: 6 + 6 blocks, 512 wide; 60,506,624 parameters with T5's vocabulary of 32,128.

The paper counts 77 million weights: the classifier's, which are the embedding's, counted twice
(76,956,160).

Source: Raffel et al. 2020; paper, Table 3.
"""

from torch import nn

from pipeline.models import _t5


def build(classes: int, channels: int) -> nn.Module:
    """Return the network with random weights from torch's generator."""
    return _t5.build(channels, classes=classes, width=512, head=64, heads=8, wide=2048, deep=6)
