"""Blur corruptions: Gaussian, defocus, glass, motion and zoom."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.evaluate.corruptions.filters import Images, gaussian, quantise, smear, unit, zoomed


def gaussian_blur(images: Images, sigma: float, _: Generator) -> Images:
    """Average with Gaussian weights."""
    return quantise(gaussian(unit(images), sigma))


def defocus_blur(images: Images, constants: tuple[float, float], _: Generator) -> Images:
    """Average over a disk with a softened edge, like a lens out of focus."""
    kernel = _disk(*constants)[None, :, :, None]
    return quantise(ndimage.correlate(unit(images), kernel, mode="mirror"))


def _disk(radius: float, softness: float) -> NDArray[np.float32]:
    """Return the weights of a disk whose edge is softened by 3 (above radius 8: 5) taps.

    A disk that touches the grid's border, from radius 8 on, gains weight there and brightens the
    image by a hundredth, as in the benchmarks.
    """
    reach = np.arange(-max(8, radius), max(8, radius) + 1)
    disk = (reach[:, None] ** 2 + reach**2 <= radius**2).astype(np.float64)
    disk /= disk.sum()
    offsets = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    weights = np.exp(-(offsets**2) / (2 * softness**2))
    for axis in (0, 1):
        disk = ndimage.correlate1d(disk, weights / weights.sum(), axis, mode="mirror")
    return disk.astype(np.float32)


def glass_blur(images: Images, constants: tuple[float, int, int], rng: Generator) -> Images:
    """Scatter the pixels over a short distance between two slight blurs, like frosted glass."""
    sigma, reach, rounds = constants
    # The benchmarks truncate here without clipping; a blur stays in [0, 1].
    scattered = quantise(gaussian(unit(images), sigma))
    for _ in range(rounds):
        scattered = _scatter(scattered, reach, rng)
    return quantise(gaussian(unit(scattered), sigma))


def _scatter(images: Images, reach: int, rng: Generator) -> Images:
    """Give each pixel, from the last to the first, the value of a random neighbour.

    The benchmarks' code looks like a swap of the two pixels, but its operands are views, so the
    second assignment changes nothing and the neighbour keeps its value. A later neighbour was
    processed before and passes on the value that it received, so values move far. Instead of a
    loop over the pixels, each pixel points to the source of its value, and pointer doubling
    resolves all pointers at once.
    """
    n, height, width, channels = images.shape
    rows, columns, pixels = height - 2 * reach, width - 2 * reach, height * width
    if rows <= 0 or columns <= 0:
        return images
    offsets = rng.integers(-reach, reach, (2, n, rows, columns))
    inside = np.arange(pixels).reshape(height, width)
    inside = inside[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1]
    neighbour = inside + offsets[0] * width + offsets[1]
    # Node p is pixel p after processing, node pixels + p is pixel p before, the end of a chain.
    before = np.arange(pixels, 2 * pixels)
    source = np.tile(np.concatenate([before, before]), (n, 1))
    processed = neighbour > inside
    source[:, inside] = np.where(processed, neighbour, neighbour + pixels)
    while (source[:, :pixels] < pixels).any():
        source = np.take_along_axis(source, source, axis=1)
    origin = source[:, :pixels, None] - pixels
    flat = images.reshape(n, pixels, channels)
    return np.take_along_axis(flat, origin, axis=1).reshape(images.shape)


def motion_blur(images: Images, constants: tuple[int, float], rng: Generator) -> Images:
    """Smear each image along a random direction within 45 degrees of the horizontal."""
    angles = rng.uniform(-45, 45, len(images))
    return smear(images, *constants, angles).astype(np.uint8)


def zoom_blur(images: Images, constants: tuple[float, float], _: Generator) -> Images:
    """Average the image and its enlargements, like a camera moving towards the object."""
    x = unit(images).astype(np.float32)
    factors = np.arange(1, *constants)
    total = np.zeros_like(x)
    for factor in factors:
        total += zoomed(x, factor)
    return quantise((x + total) / (len(factors) + 1))
