"""WideResNet-22-10, the paper's "WRN-20": 26,863,460 parameters for 100 classes.

Source: S. Zagoruyko and N. Komodakis, "Wide Residual Networks", BMVC 2016. As in the network the
paper trained, every convolution has a bias, the second convolution of a block has its stride, and a
1x1 shortcut takes the block's input before normalisation.
"""

from torch import Tensor, nn
from torch.nn import functional

from pipeline.models._init import he_initialise

DEPTH, WIDEN, DROPOUT = 22, 10, 0.3
BLOCKS = (DEPTH - 4) // 6


class WideBlock(nn.Module):
    """Pre-activation: conv(relu(bn(dropout(conv(relu(bn(x))))))) + shortcut(x)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.dropout = nn.Dropout(DROPOUT)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1)
        self.shortcut = nn.Sequential()  # the identity, where shapes agree
        if stride != 1 or inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        hidden = self.dropout(self.conv1(functional.relu(self.bn1(x))))
        hidden = self.conv2(functional.relu(self.bn2(hidden)))
        total: Tensor = hidden + self.shortcut(x)
        return total


class WideResNet(nn.Module):
    """A 3x3 stem to 16 channels, three stages at 160, 320 and 640 channels, and a classifier."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1)
        self.stages = nn.Sequential()
        inputs = 16
        for stage, width in enumerate((16 * WIDEN, 32 * WIDEN, 64 * WIDEN)):
            for block in range(BLOCKS):
                stride = 2 if stage > 0 and block == 0 else 1
                self.stages.append(WideBlock(inputs, width, stride))
                inputs = width
        self.bn1 = nn.BatchNorm2d(inputs)
        self.fc = nn.Linear(inputs, classes)
        he_initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, channels, H, W] of any size to logits [B, classes]."""
        hidden = self.stages(self.conv1(x))
        hidden = functional.relu(self.bn1(hidden))
        logits: Tensor = self.fc(hidden.mean((2, 3)))
        return logits


def build(classes: int, channels: int) -> nn.Module:
    """Return the network with random weights from torch's generator."""
    return WideResNet(classes, channels)
