"""Random resized crops: the part of each image that is cut out and resized in an epoch."""

import math

import torch
from torch import Tensor

ATTEMPTS = 10
CHUNK = 8192  # images whose crops are drawn together
RATIOS = (3 / 4, 4 / 3)  # of width to height


def draw(sizes: Tensor, smallest: float, generator: torch.Generator, *, flip: bool) -> Tensor:
    """Return one crop an image, int64 [N, 5]: top, left, height, width, mirrored (0 or 1).

    With A = H W and draws a ~ U(smallest, 1), log r ~ U(log 3/4, log 4/3) the crop is
    w = round(sqrt(a A r)) wide and h = round(sqrt(a A / r)) high, uniformly anywhere inside. Of ten
    draws the first that fits is taken; if none fits, the largest central part whose ratio of
    width to height is within bounds. The number of draws is the same for every image.

    Args:
        sizes: height and width of each image, int64 [N, 2].
        smallest: fraction of the area, in (0, 1].
        generator: on the CPU.
        flip: whether half of the crops are mirrored.

    Source: Szegedy et al. 2015; torchvision's RandomResizedCrop and RandomHorizontalFlip.
    """
    parts = [_draw(part, smallest, generator, flip=flip) for part in torch.split(sizes, CHUNK)]
    return torch.cat(parts)


def _draw(sizes: Tensor, smallest: float, generator: torch.Generator, *, flip: bool) -> Tensor:
    count = len(sizes)
    draws = torch.rand(count, 2 * ATTEMPTS + 3, generator=generator, dtype=torch.float64)
    height, width = sizes.double().unbind(1)
    area = height * width
    fractions = smallest + (1 - smallest) * draws[:, :ATTEMPTS]
    low, high = (math.log(ratio) for ratio in RATIOS)
    ratios = (low + (high - low) * draws[:, ATTEMPTS : 2 * ATTEMPTS]).exp()
    w = (area[:, None] * fractions * ratios).sqrt().round()
    h = (area[:, None] * fractions / ratios).sqrt().round()
    fits = (w > 0) & (w <= width[:, None]) & (h > 0) & (h <= height[:, None])
    first = fits.to(torch.uint8).argmax(1, keepdim=True)  # the first of equal largest ones
    any_fits = fits.any(1)
    central_h, central_w = _central(height, width)
    h = torch.where(any_fits, h.gather(1, first)[:, 0], central_h)
    w = torch.where(any_fits, w.gather(1, first)[:, 0], central_w)
    down, right, mirrored = draws[:, 2 * ATTEMPTS :].unbind(1)
    top = torch.where(any_fits, (down * (height - h + 1)).floor(), ((height - h) / 2).floor())
    left = torch.where(any_fits, (right * (width - w + 1)).floor(), ((width - w) / 2).floor())
    mirror = (mirrored < 0.5) if flip else torch.zeros(count, dtype=torch.bool)
    return torch.stack([top, left, h, w, mirror.double()], 1).long()


def _central(height: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Return height and width of the largest part whose ratio is within `RATIOS`."""
    low, high = RATIOS
    return (
        torch.minimum(height, (width / low).round()),
        torch.minimum(width, (height * high).round()),
    )
