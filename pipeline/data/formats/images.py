"""Image files to uint8 arrays, many at a time; a file that cannot be read is named."""

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.errors import UserError

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
# Threads halve the time of photographs, whose decoding releases the interpreter's lock. They gain
# nothing on thumbnails, which mostly open files, and cost nothing when each takes a long stretch.
STRETCH = 512


def load_images(paths: Sequence[Path], size: int) -> NDArray[np.uint8]:
    """Return the images in ``paths`` as uint8 [N, 3, size, size], in that order.

    Raises:
        UserError: a file is no readable image; it names the first.
    """
    images = np.empty((len(paths), 3, size, size), dtype=np.uint8)

    def fill(start: int) -> None:
        for row in range(start, min(start + STRETCH, len(paths))):
            images[row] = decode(paths[row], size)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(fill, range(0, len(paths), STRETCH)):
            pass  # draws out a UserError of that stretch
    return images


def decode(path: Path, size: int) -> NDArray[np.uint8]:
    """Return one image as RGB, uint8 [3, size, size]: short side to ``size``, then the centre.

    Resampling is bilinear with antialiasing; sizes and offsets round as torchvision's Resize and
    CenterCrop do. An image whose short side is ``size`` already is not resampled.
    """
    try:
        # From memory: Pillow makes 40 small reads an image, and each costs a system call.
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"mode {image.mode} has more than 8 bits a channel")
            square = _square(ImageOps.exif_transpose(image).convert("RGB"), size)
    except Exception as error:  # a damaged file may raise anything
        raise UserError(
            f"{path} cannot be read as an image ({error}): mend it, or take it out"
        ) from error
    return np.asarray(square).transpose(2, 0, 1)


def _square(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    short = min(width, height)
    if short != size:
        width, height = size * width // short, size * height // short
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))
