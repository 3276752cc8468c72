"""Normalisation of stored pixels: (x / 255 - mean) / std."""

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.train.placement import to_device


def normaliser(mean: Tensor, std: Tensor, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return the map x -> (x / 255 - mean) / std, from uint8 to float32 images, channels last.

    Where ``mean`` is empty, examples are token ids and stay unchanged.

    Computed as x * scale + shift with scale = 1 / (255 std), shift = -mean / std: one
    conversion and one pass, equal to the formula but for rounding (1e-6).

    Arguments: mean, std, float32 [C], of images / 255; device, where the images will be.
    """
    if not len(mean):
        return lambda tokens: tokens
    scale = to_device((1 / (255 * std.double())).float().view(-1, 1, 1), device)
    shift = to_device((-mean.double() / std.double()).float().view(-1, 1, 1), device)

    def normalise(images: Tensor) -> Tensor:
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        return torch.addcmul(shift, pixels, scale, out=pixels)

    return normalise
