"""PSPNet for small images and two cores: 786,123 parameters for 11 classes.

Its backbone has a 3x3 stem of stride 2 and three stages of two basic blocks at 32, 64 and 128
channels. Its features have an eighth of the image's size, as in PSPNet, without dilation.
"""

from torch import Tensor, nn
from torch.nn import functional

from pipeline.models._init import he_initialise
from pipeline.models._pyramid import PyramidNetwork
from pipeline.models._residual import BasicBlock

WIDTHS, BLOCKS = (32, 64, 128), 2


class Backbone(nn.Module):
    """A stem and three stages; every stage after the first halves the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inputs = WIDTHS[0]
        self.conv1 = nn.Conv2d(channels, inputs, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.stages = nn.Sequential()
        for width in WIDTHS:
            for block in range(BLOCKS):
                stride = 2 if width != WIDTHS[0] and block == 0 else 1
                self.stages.append(BasicBlock(inputs, width, stride))
                inputs = width

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, channels, H, W] to [B, 128, H / 8, W / 8]."""
        features: Tensor = self.stages(functional.relu(self.bn1(self.conv1(images))))
        return features


def build(classes: int, channels: int) -> nn.Module:
    """Return the network with random weights from torch's generator."""
    network = PyramidNetwork(Backbone(channels), WIDTHS[-1], classes)
    he_initialise(network)
    return network
