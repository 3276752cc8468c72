"""Random crops, flips and rotations of a batch at once, exactly as torchvision does one by one.

Crop, flip and rotation move pixels without changing them, so one gather does them together.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from pipeline.train.settings import Augmentation


def draw(augmentation: Augmentation, count: int, generator: torch.Generator) -> Tensor:
    """Return the draws of ``count`` images, float64 [count, 4], one row an image.

    Columns: the crop's row and column in the padded image, flip (0 or 1), angle in degrees
    (counter-clockwise). All four are always drawn: switching one off leaves the others' draws.
    """
    padding = augmentation.crop_padding
    offsets = torch.randint(0, 2 * padding + 1, (count, 2), generator=generator)
    flips = augmentation.flip * (torch.rand(count, 1, generator=generator) < 0.5)
    angles = augmentation.rotation * (2 * torch.rand(count, 1, generator=generator) - 1)
    return torch.cat([offsets.double(), flips.double(), angles.double()], dim=1)


def apply(augmentation: Augmentation, images: Tensor, draws: Tensor, fill: int = 0) -> Tensor:
    """Return ``images``, integers [B, C, H, W], moved by ``draws`` of `draw`, on their device.

    Pixels from outside the image are ``fill``.
    """
    if augmentation == Augmentation():
        return images
    batch, channels, height, width = images.shape
    down, right, flip = draws[:, :3].to(torch.int32).view(batch, 3, 1, 1).unbind(1)
    rows = torch.arange(height, dtype=torch.int32, device=images.device).view(1, -1, 1)
    columns = torch.arange(width, dtype=torch.int32, device=images.device).view(1, 1, -1)
    inside = None
    if augmentation.rotation:
        rows, columns = _before_rotation(rows, columns, height, width, draws[:, 3])
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    columns = torch.where(flip == 1, width - 1 - columns, columns)
    border = max(augmentation.crop_padding, 1)
    shift = border - augmentation.crop_padding
    source = (rows + down + shift) * (width + 2 * border) + (columns + right + shift)
    if inside is not None:
        source = source * inside  # pixel 0 belongs to the border, so it is filled
    index = source.long().view(batch, 1, -1).expand(-1, channels, -1)
    pixels = pad(images, (border,) * 4, value=fill).flatten(2).gather(2, index)
    return pixels.view(images.shape)


def _before_rotation(
    rows: Tensor, columns: Tensor, height: int, width: int, degrees: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the source of each pixel of images turned by ``degrees``, int32 [B, H, W] each.

    The centre p of a pixel comes from R(p - c) + c, with c the image's centre and R the rotation;
    the pixel that contains this point is taken. In 16.16 fixed point and in PIL's order of
    operations, so that no pixel differs from `PIL.Image.rotate`.
    """
    angle = -torch.deg2rad(degrees).view(-1, 1, 1)
    cosine, sine = angle.cos(), angle.sin()
    x, y = width / 2, height / 2
    left = x - cosine * x - sine * y
    top = y + sine * x - cosine * y

    def fixed(value: Tensor) -> Tensor:
        return (value * 65536 + 0.5).floor().to(torch.int32)

    column = fixed(left + (cosine + sine) / 2) + columns * fixed(cosine) + rows * fixed(sine)
    row = fixed(top + (cosine - sine) / 2) + columns * fixed(-sine) + rows * fixed(cosine)
    return row >> 16, column >> 16
