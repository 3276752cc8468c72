"""Pyramid pooling: local features joined with averages over larger regions.

Source: H. Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, Figure 3.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import UserError

BINS = (1, 2, 3, 6)


def unit(inputs: int, outputs: int, size: int) -> nn.Sequential:
    """Return relu(bn(conv(x))) with a ``size`` x ``size`` kernel that keeps the map's size."""
    convolution = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class PyramidNetwork(nn.Module):
    """Features of a backbone, joined with their means over 1, 4, 9 and 36 regions, and classified.

    Each pooled map goes through a 1x1 convolution to a quarter of the backbone's ``width`` and is
    resized back; a 3x3 convolution mixes all maps, and the logits are resized from the backbone's
    resolution to the image's.

    Args:
        backbone: maps images [B, C, H, W] to [B, width, H / 8, W / 8].
        width: a multiple of 4.
        classes: number of logits a pixel.
    """

    def __init__(self, backbone: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.pyramid = nn.ModuleList(unit(width, width // 4, 1) for _ in BINS)
        self.mix = unit(2 * width, width // 4, 3)
        self.dropout = nn.Dropout2d(0.1)
        self.classifier = nn.Conv2d(width // 4, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, C, H, W] to logits [B, classes, H, W]."""
        if self.training and len(images) == 1:
            raise UserError(
                "pretrain.batch_size must be at least 2 for a pyramid network: BatchNorm has one "
                "value a channel in the 1x1 map of a single image."
            )
        features = self.backbone(images)
        size = features.shape[-2:]
        maps = [features]
        for bins, layer in zip(BINS, self.pyramid, strict=True):
            pooled = layer(functional.adaptive_avg_pool2d(features, bins))
            maps.append(_resized(pooled, size))
        logits = self.classifier(self.dropout(self.mix(torch.cat(maps, dim=1))))
        return _resized(logits, images.shape[-2:])


def _resized(maps: Tensor, size: torch.Size) -> Tensor:
    return functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def dilate(stage: nn.Module, rate: int) -> None:
    """Make ``stage`` keep its input's size: stride 1, and 3x3 kernels of dilation ``rate``."""
    for layer in stage.modules():
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
            if layer.kernel_size == (3, 3):
                layer.dilation = layer.padding = (rate, rate)
