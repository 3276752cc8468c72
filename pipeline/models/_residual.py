"""Residual network for small images: a 3x3 stem and stages of basic blocks.

Source: K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, Section 4.2, with
projection shortcuts (option B).
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from pipeline.models._init import he_initialise


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: relu(bn(conv(relu(bn(conv(x))))) + shortcut(x))."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()  # the identity, where shapes agree
        if stride != 1 or inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        hidden = functional.relu(self.bn1(self.conv1(x)))
        hidden = self.bn2(self.conv2(hidden))
        return functional.relu(hidden + self.shortcut(x))


class ResidualNetwork(nn.Module):
    """Stages of ``blocks`` basic blocks each; every stage after the first halves the image.

    Args:
        widths: channels of each stage; the stem has as many as the first.
        blocks: blocks a stage; the network is 2 * blocks * len(widths) + 2 layers deep.
        classes: number of logits.
        channels: of the image.
    """

    def __init__(self, widths: Sequence[int], blocks: int, classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stages = nn.Sequential()
        inputs = widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                self.stages.append(BasicBlock(inputs, width, stride))
                inputs = width
        self.fc = nn.Linear(inputs, classes)
        he_initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, channels, H, W] of any size to logits [B, classes]."""
        hidden = functional.relu(self.bn1(self.conv1(x)))
        hidden = self.stages(hidden)
        logits: Tensor = self.fc(hidden.mean((2, 3)))
        return logits
