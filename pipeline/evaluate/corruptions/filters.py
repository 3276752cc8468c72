"""Filters of several corruptions, and the conversion between bytes and intensities.

Images are batches [N, H, W, C] with C = 1 or 3; a layer is [N, H, W].
"""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Images = NDArray[np.uint8]
Floats = NDArray[np.floating]

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def unit(images: Images) -> NDArray[np.float64]:
    """Return intensities in [0, 1]."""
    return images / 255.0


def quantise(intensities: Floats) -> Images:
    """Return bytes, clipped and truncated as both benchmarks do (not rounded)."""
    return (np.clip(intensities, 0, 1) * 255).astype(np.uint8)


def luminance(images: Floats) -> Floats:
    """Return the luminance [N, H, W, 1] of colours; one channel is returned unchanged."""
    return images if images.shape[-1] == 1 else (images @ LUMA)[..., None]


def tint(layer: Floats, colour: tuple[int, int, int], channels: int) -> Floats:
    """Return ``layer`` [N, H, W] in ``colour`` (bytes), or in its luminance for one channel."""
    tinted = layer[..., None] * (np.array(colour) / 255)
    return tinted if channels == 3 else luminance(tinted)


def gaussian(
    images: Floats,
    sigma: float | tuple[float, float],
    mode: Literal["nearest", "reflect"] = "nearest",
    reach: float = 4.0,
) -> Floats:
    """Return [N, H, W] or [N, H, W, C] blurred in the image plane, truncated at ``reach`` sigmas.

    Past the edge the edge value is repeated (``nearest``) or the image mirrored (``reflect``).
    """
    height, width = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    sigmas = (0.0, height, width, 0.0)[: images.ndim]
    return np.asarray(ndimage.gaussian_filter(images, sigmas, mode=mode, truncate=reach))


def smear(images: Floats | Images, radius: int, sigma: float, angles: Floats) -> Floats:
    """Return [N, H, W, C] smeared along ``angles`` [N] in degrees; the edge value is repeated.

    out(p) = sum_{i=0}^{2 radius} k_i in(p + round(i (cos a, sin a))), k_i ~ exp(-i^2 / 2 sigma^2)

    Source: ImageMagick's MotionBlurImage, which both benchmarks used.
    """
    n, height, width = images.shape[:3]
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    down, right = np.sin(np.deg2rad(angles)), np.cos(np.deg2rad(angles))
    image = np.arange(n)[:, None, None]
    out = np.zeros(images.shape)
    for step, weight in zip(steps, weights, strict=True):
        rows = np.arange(height) + np.ceil(step * down - 0.5).astype(int)[:, None]
        columns = np.arange(width) + np.ceil(step * right - 0.5).astype(int)[:, None]
        rows, columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
        out += weight * images[image, rows[:, :, None], columns[:, None, :]]
    return out


def zoomed(images: Floats, factor: float) -> Floats:
    """Return the centre of [N, H, W, C] enlarged ``factor`` times to the same size, linearly."""
    n, height, width, channels = images.shape
    rows, columns = _zoom_matrix(height, factor), _zoom_matrix(width, factor)
    tall = rows @ images.reshape(n, height, width * channels)
    wide = columns @ tall.reshape(n * height, width, channels)
    return wide.reshape(images.shape).astype(images.dtype)


def _zoom_matrix(size: int, factor: float) -> NDArray[np.float64]:
    """Return the matrix [size, size] that enlarges the middle of a line ``factor`` times.

    Output o is at position o (c - 1) / (round(c factor) - 1) of the middle
    c = ceil(size / factor) values.
    """
    crop = math.ceil(size / factor)
    position = np.arange(size) * ((crop - 1) / max(1, round(crop * factor) - 1))
    low = np.minimum(position.astype(int), crop - 1)
    high = np.minimum(low + 1, crop - 1)
    matrix = np.zeros((size, size))
    first, output = (size - crop) // 2, np.arange(size)
    np.add.at(matrix, (output, first + low), 1 - (position - low))
    np.add.at(matrix, (output, first + high), position - low)
    return matrix
