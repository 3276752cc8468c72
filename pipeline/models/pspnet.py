"""PSPNet on a dilated ResNet-101: 65,583,699 parameters for 19 classes.

Source: H. Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017. The paper's "PSPNet (68 Mio)"
also has the auxiliary classifier on the third stage (2.4 M) and its loss, which only training uses
and which are left out here. With ResNet-50 it would have 46.6 M.

`network.weights` may be torchvision's ImageNet weights of resnet101, which initialise the backbone.
"""

from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.models._pyramid import PyramidNetwork, dilate


class Backbone(nn.Module):
    """torchvision's ResNet-101 without its classifier, dilated from the third stage on."""

    def __init__(self) -> None:
        # The import takes 4 s.
        from torchvision.models import resnet101  # type: ignore[import-untyped]  # noqa: PLC0415

        super().__init__()
        network = resnet101(weights=None)
        self.conv1, self.bn1 = network.conv1, network.bn1
        self.relu, self.maxpool = network.relu, network.maxpool
        self.layer1, self.layer2 = network.layer1, network.layer2
        self.layer3, self.layer4 = network.layer3, network.layer4
        dilate(self.layer3, 2)
        dilate(self.layer4, 4)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, 3, H, W] to [B, 2048, H / 8, W / 8]."""
        hidden = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        features: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(hidden))))
        return features


def build(classes: int, channels: int) -> nn.Module:
    """Return the network with random weights from torch's generator.

    Raises:
        UserError: the images are not in colour.
    """
    if channels != 3:
        raise UserError(
            f"network.name is pspnet, which takes colour images, but these have {channels} "
            "channels: choose pspnet_small"
        )
    return PyramidNetwork(Backbone(), 2048, classes)
