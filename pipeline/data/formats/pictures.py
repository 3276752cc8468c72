"""One compressed image: opened, shrunk, and the square that a network sees of it."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def short_side(size: int) -> int:
    """Return what the short side of an image is resized to before ``size`` pixels are cropped."""
    return size * 256 // 224


def opened(blob: bytes) -> Image.Image:
    """Return the image in ``blob`` as RGB, as it is stored: torchvision turns none by its EXIF."""
    image = Image.open(io.BytesIO(blob))
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")


def shrunk(image: Image.Image, short: int) -> Image.Image:
    """Return ``image`` with its short side of ``short`` pixels, rounded as torchvision's Resize."""
    width, height = image.size
    own = min(width, height)
    if own == short:
        return image
    return image.resize((short * width // own, short * height // own), Image.Resampling.BILINEAR)


def square(blob: bytes, size: int) -> NDArray[np.uint8]:
    """Return the usual square of an image, uint8 [size, size, 3]."""
    image = shrunk(opened(blob), short_side(size))
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def part(blob: bytes, crop: list[int], size: int) -> NDArray[np.uint8]:
    """Return the part ``crop`` of an image resized to uint8 [size, size, 3]."""
    top, left, height, width, mirrored = crop
    box = (left, top, left + width, top + height)
    # Pillow reads pixels beyond the box at its border, unless the part is cut out first.
    image = opened(blob).crop(box).resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[:, ::-1] if mirrored else pixels
