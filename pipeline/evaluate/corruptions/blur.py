"""Blur: lenses, glass and motion."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.evaluate.corruptions.filters import Images, gaussian, quantise, smear, unit, zoomed


def gaussian_blur(images: Images, sigma: float, _: Generator) -> Images:
    """Average with Gaussian weights."""
    return quantise(gaussian(unit(images), sigma))


def defocus_blur(images: Images, constants: tuple[float, float], _: Generator) -> Images:
    """Average over a disk with a softened edge: a lens out of focus."""
    kernel = _disk(*constants)[None, :, :, None]
    return quantise(ndimage.correlate(unit(images), kernel, mode="mirror"))


def _disk(radius: float, softness: float) -> NDArray[np.float32]:
    """Return the weights of a disk whose edge is softened by 3 (above radius 8: 5) taps.

    A disk that touches the grid's border, as of radius 8, gains weight there; so it is in the
    benchmarks, whose images it brightens by a hundredth.
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
    """Scatter the pixels over a short distance between two slight blurs: frosted glass."""
    sigma, reach, rounds = constants
    # The benchmarks truncate here without clipping; a blur never leaves [0, 1].
    scattered = quantise(gaussian(unit(images), sigma))
    for _ in range(rounds):
        scattered = _scatter(scattered, reach, rng)
    return quantise(gaussian(unit(scattered), sigma))


def _scatter(images: Images, reach: int, rng: Generator) -> Images:
    """Give each pixel, from the last to the first, the value of a random neighbour.

    The benchmarks' code reads as a swap of the two pixels, but its operands are views, so that the
    second assignment changes nothing: the neighbour keeps its value. A neighbour further on has
    had its turn and hands on what it got, so values wander; instead of walking the pixels one by
    one we point each to where its value comes from and follow all pointers at once, doubling.
    """
    n, height, width, channels = images.shape
    rows, columns, pixels = height - 2 * reach, width - 2 * reach, height * width
    if rows <= 0 or columns <= 0:
        return images
    offsets = rng.integers(-reach, reach, (2, n, rows, columns))
    inside = np.arange(pixels).reshape(height, width)
    inside = inside[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1]
    neighbour = inside + offsets[0] * width + offsets[1]
    # Node p is pixel p after its turn, node pixels + p is pixel p before it, where a value ends.
    before = np.arange(pixels, 2 * pixels)
    source = np.tile(np.concatenate([before, before]), (n, 1))
    had_turn = neighbour > inside
    source[:, inside] = np.where(had_turn, neighbour, neighbour + pixels)
    while (source[:, :pixels] < pixels).any():
        source = np.take_along_axis(source, source, axis=1)
    origin = source[:, :pixels, None] - pixels
    flat = images.reshape(n, pixels, channels)
    return np.take_along_axis(flat, origin, axis=1).reshape(images.shape)


def motion_blur(images: Images, constants: tuple[int, float], rng: Generator) -> Images:
    """Drag each image along a random direction within 45 degrees of the horizontal."""
    angles = rng.uniform(-45, 45, len(images))
    return smear(images, *constants, angles).astype(np.uint8)


def zoom_blur(images: Images, constants: tuple[float, float], _: Generator) -> Images:
    """Average the image and its enlargements: a camera that moves towards the object."""
    x = unit(images).astype(np.float32)
    factors = np.arange(1, *constants)
    total = np.zeros_like(x)
    for factor in factors:
        total += zoomed(x, factor)
    return quantise((x + total) / (len(factors) + 1))
