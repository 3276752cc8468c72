"""Elastic transform: a random affine map, then a smooth random displacement of each pixel."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pipeline.evaluate.corruptions.filters import Floats, Images, gaussian, quantise, unit

Indices = NDArray[np.intp]


def elastic_transform(
    images: Images, constants: tuple[float, float, float], rng: Generator
) -> Images:
    """Apply an affine map that jitters three corners, then a smooth random displacement field."""
    shift, sigma, jitter = constants
    n, height, width, _ = images.shape
    x = unit(images).astype(np.float32)
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    if jitter:
        to_rows, to_columns = _affine((n, height, width), jitter * min(height, width), rng)
        x = _sample(x, to_rows, to_columns, _mirror)
    sigmas = sigma * height, sigma * width
    right, down = (
        gaussian(rng.uniform(-1, 1, (n, height, width)), sigmas, "reflect", 3.0) * shift * height
        for _ in range(2)
    )
    return quantise(_sample(x, rows + down, columns + right, _reflect))


def _affine(
    shape: tuple[int, int, int], jitter: float, rng: Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the source (row, column) of each pixel [N, H, W] under a random affine map."""
    n, height, width = shape
    arm = min(height, width) // 3
    corners = np.array([[1, 1], [1, -1], [-1, -1]]) * arm + [width // 2, height // 2]
    moved = corners + rng.uniform(-jitter, jitter, (n, 3, 2))
    # The map back from the moved corners: [x, y, 1] @ back = the source.
    back = np.linalg.solve(np.dstack([moved, np.ones((n, 3, 1))]), corners.astype(float)[None])
    rows, columns = np.mgrid[:height, :width]
    sources = np.stack([columns, rows, np.ones_like(rows)], axis=-1).reshape(1, -1, 3) @ back
    return sources[..., 1].reshape(shape), sources[..., 0].reshape(shape)


def _mirror(index: Indices, size: int) -> Indices:
    """Continue 0 1 2 3 as 2 1 0 1."""
    period = max(1, 2 * size - 2)
    index = index % period
    return np.minimum(index, period - index)


def _reflect(index: Indices, size: int) -> Indices:
    """Continue 0 1 2 3 as 3 2 1 0."""
    index = index % (2 * size)
    return np.minimum(index, 2 * size - 1 - index)


def _sample(
    images: Floats,
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    fold: Callable[[Indices, int], Indices],
) -> Floats:
    """Return [N, H, W, C] sampled bilinearly at positions [N, H, W], folded at the edge."""
    n, height, width, _ = images.shape
    image = np.arange(n)[:, None, None]
    top, left = np.floor(rows).astype(np.intp), np.floor(columns).astype(np.intp)
    below, right = (rows - top)[..., None], (columns - left)[..., None]
    corners = [
        images[image, fold(top + i, height), fold(left + j, width)] for i in (0, 1) for j in (0, 1)
    ]
    upper = corners[0] * (1 - right) + corners[1] * right
    lower = corners[2] * (1 - right) + corners[3] * right
    return (upper * (1 - below) + lower * below).astype(images.dtype)
