"""Digital corruptions: contrast, saturation, JPEG compression and pixelation."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
from numpy.random import Generator
from PIL import Image
from skimage.color import hsv2rgb, rgb2hsv

from pipeline.evaluate.corruptions.filters import Images, luminance, quantise, unit


def contrast(images: Images, factor: float, _: Generator) -> Images:
    """Scale the distance of each channel's values from the image's mean by ``factor``."""
    x = unit(images)
    means = x.mean(axis=(1, 2), keepdims=True)
    return quantise((x - means) * factor + means)


def saturate(images: Images, constants: tuple[float, float], _: Generator) -> Images:
    """Multiply the saturation by a factor and raise it by an addend.

    A grey image has hue 0 (red), so a raised saturation darkens it to the luminance of that pink.
    """
    factor, addend = constants
    x = unit(images)
    colours = rgb2hsv(np.broadcast_to(x, (*x.shape[:3], 3)))
    colours[..., 1] = np.clip(colours[..., 1] * factor + addend, 0, 1)
    changed = hsv2rgb(colours)
    return quantise(changed if images.shape[-1] == 3 else luminance(changed))


def _map_pictures(images: Images, change: Callable[[Image.Image], Image.Image]) -> Images:
    """Return ``images`` with ``change`` applied to each picture."""
    pictures = images[..., 0] if images.shape[-1] == 1 else images
    changed = [np.asarray(change(Image.fromarray(picture))) for picture in pictures]
    return np.stack(changed).reshape(images.shape)


def jpeg_compression(images: Images, quality: int, _: Generator) -> Images:
    """Compress as JPEG and read back."""

    def change(picture: Image.Image) -> Image.Image:
        file = BytesIO()
        picture.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _map_pictures(images, change)


def pixelate(images: Images, fraction: float, _: Generator) -> Images:
    """Reduce the resolution to ``fraction`` by box averages and enlarge it again."""
    height, width = images.shape[1:3]
    small = max(1, int(width * fraction)), max(1, int(height * fraction))
    box = Image.Resampling.BOX
    return _map_pictures(
        images, lambda picture: picture.resize(small, box).resize((width, height), box)
    )
