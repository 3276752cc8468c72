"""Spatter corruption: drops of water or splashes of mud on the lens."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.evaluate.corruptions.filters import (
    Floats,
    Images,
    gaussian,
    quantise,
    tint,
    unit,
)

WATER = (175, 238, 238)
MUD = (63, 42, 20)
EDGE_LOW, EDGE_HIGH = 50, 150  # of the gradient's |dx| + |dy|, in bytes
FLAT_FROM = 20  # pixels from an edge; beyond it a drop is flat
LIGHT_KERNEL = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])


def spatter(
    images: Images, constants: tuple[float, float, float, float, float, bool], rng: Generator
) -> Images:
    """Cover the image with lit water or mud where a smooth random field exceeds a threshold."""
    mean, deviation, sigma, threshold, strength, mud = constants
    x = unit(images)
    liquid = gaussian(rng.normal(mean, deviation, images.shape[:3]), sigma)
    liquid = np.where(liquid < threshold, 0, liquid)
    if mud:
        cover = gaussian((liquid > threshold).astype(float), strength)
        cover = np.where(cover < 0.8, 0, cover)
        return quantise(x * (1 - cover[..., None]) + tint(cover, MUD, x.shape[-1]))
    level = (liquid * 255).astype(np.uint8)
    light = level * _relief(level)
    brightest = light.max(axis=(1, 2), keepdims=True)
    light = strength * light / np.where(brightest > 0, brightest, 1)
    return quantise(x + tint(light, WATER, x.shape[-1]))


def _relief(level: Images) -> Floats:
    """Return the light on drops [N, H, W]: distance from the edge, equalised, lit diagonally."""
    distance = np.minimum(_distance(~edges(level)), FLAT_FROM)
    height = equalised(_mean3(distance).astype(np.uint8))
    lit = ndimage.correlate(height.astype(np.int64), LIGHT_KERNEL[None], mode="mirror")
    return np.round(_mean3(np.clip(lit, 0, 255).astype(float)))


def _mean3(layer: Floats) -> Floats:
    return np.asarray(ndimage.uniform_filter(layer, (0, 3, 3), mode="mirror"))


def _distance(empty: NDArray[np.bool_]) -> Floats:
    """Return each pixel's distance to the nearest edge pixel of its own image."""
    spacing = 2 * FLAT_FROM * len(empty)  # keeps the images of the batch apart
    if not empty.all():
        return np.asarray(ndimage.distance_transform_edt(empty, sampling=(spacing, 1, 1)))
    return np.full(empty.shape, float(FLAT_FROM))


def edges(level: Images) -> NDArray[np.bool_]:
    """Return Canny's edges of bytes [N, H, W]: ridges of the gradient that reach a strong one.

    The liquid is smooth already, so the method's initial blur is left out.

    Source: Canny 1986, A Computational Approach to Edge Detection.
    """
    layer = level.astype(np.int64)
    down, right = (_sobel(layer, axis) for axis in (1, 2))
    size = np.abs(down) + np.abs(right)
    padded = np.pad(size, ((0, 0), (1, 1), (1, 1)))
    height, width = level.shape[1:]

    def at(row: int, column: int) -> NDArray[np.int64]:
        return padded[:, 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    # The gradient's direction in four sectors, separated by tan(22.5 degrees).
    flat = np.abs(down) < np.tan(np.pi / 8) * np.abs(right)
    steep = np.abs(down) > np.tan(3 * np.pi / 8) * np.abs(right)
    rising = (down < 0) != (right < 0)
    sectors = [flat, steep, rising]
    ahead = np.select(sectors, [at(0, -1), at(-1, 0), at(-1, 1)], at(-1, -1))
    behind = np.select(sectors, [at(0, 1), at(1, 0), at(1, -1)], at(1, 1))
    # Of two equal neighbours on a ridge the second of a row or column is dropped.
    tie = np.where(flat | steep, size >= behind, size > behind)
    ridge = (size > EDGE_LOW) & (size > ahead) & tie
    touching = np.zeros((3, 3, 3), bool)
    touching[1] = True  # within one image, diagonals included
    labels, count = ndimage.label(ridge, touching)
    strong = np.zeros(count + 1, bool)
    strong[labels[ridge & (size > EDGE_HIGH)]] = True
    return strong[labels] & ridge


def _sobel(layer: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
    across = ndimage.correlate1d(layer, [-1, 0, 1], axis, mode="nearest")
    return np.asarray(ndimage.correlate1d(across, [1, 2, 1], 3 - axis, mode="nearest"))


def equalised(levels: Images) -> Images:
    """Return bytes [N, H, W] with each image's histogram equalised.

    A level becomes the fraction of the pixels up to it, without those of the lowest level, times
    255; an image of one level is unchanged.
    """
    n, pixels = len(levels), levels[0].size
    keys = np.arange(n)[:, None] * 256 + levels.reshape(n, -1)
    counts = np.bincount(keys.ravel(), minlength=256 * n).reshape(n, 256)
    lowest = counts.cumsum(1)[np.arange(n), levels.reshape(n, -1).min(1)][:, None]
    rest = pixels - lowest
    table = np.round((counts.cumsum(1) - lowest) * (255 / np.where(rest > 0, rest, 1)))
    table = np.where(rest > 0, table, np.arange(256)).clip(0, 255).astype(np.uint8)
    return np.take_along_axis(table, levels.reshape(n, -1).astype(np.intp), 1).reshape(levels.shape)
