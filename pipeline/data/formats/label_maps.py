"""Label maps: images and a label for each pixel, resized alike."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.base import IGNORE, Split
from pipeline.data.formats.images import MOST, fill_rows, open_image, readable, rgb
from pipeline.errors import UserError

Pairs = Sequence[tuple[Path, Path]]


def load_pairs(pairs: Pairs, height: int | None, classes: Mapping[int, int]) -> Split:
    """Return images uint8 [N, 3, H, W] and labels int8 [N, H, W], in the order of ``pairs``.

    Both are resized to ``height`` (None: as they are), the width in proportion: images bilinearly
    with antialiasing, maps to the nearest pixel, so that every label is one of the map.

    Args:
        pairs: an image and its map, an 8-bit PNG of one channel (or a palette).
        height: pixels.
        classes: the class of each value in the map; every other value becomes `IGNORE`.

    Raises:
        UserError: a file is damaged, the sizes of a map and its image differ, or the shapes of two
            images.
    """
    table = np.full(256, IGNORE, dtype=np.int8)
    for value, label in classes.items():
        table[value] = label
    first = _decode(*pairs[0], height)[0]
    images = np.empty((len(pairs), 3, *first.shape[:2]), dtype=np.uint8)
    labels = np.empty((len(pairs), *first.shape[:2]), dtype=np.int8)

    def fill(row: int) -> None:
        image, values = _decode(*pairs[row], height)
        if image.shape != first.shape:
            raise UserError(
                f"{pairs[row][0]} is {_size(image)} pixels after resizing, but {pairs[0][0]} is "
                f"{_size(first)}: all images must have one shape"
            )
        images[row], labels[row] = image.transpose(2, 0, 1), table[values]

    fill_rows(fill, len(pairs))
    return Split(torch.from_numpy(images), torch.from_numpy(labels))


def _decode(
    image: Path, labels: Path, height: int | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return an image [H, W, 3] and the values of its map [H, W], resized."""
    with _read_image(image) as picture, _read_image(labels) as values:
        if values.mode not in {"L", "P"}:
            raise UserError(
                f"{labels} has mode {values.mode}, but must be an 8-bit PNG of label numbers"
            )
        if picture.size != values.size:
            raise UserError(
                f"{labels} is {values.size} pixels, but its image {picture.size}: get both again"
            )
        rows = height or picture.height
        size = (max(1, round(picture.width * rows / picture.height)), rows)
        if size[0] * size[1] > MOST:
            raise UserError(
                f"{image} would be resized to {size[0]}x{size[1]} pixels, and at most {MOST:,} are "
                "read: remove it, or lower data.size"
            )
        colours = rgb(picture)
        if size != picture.size:
            colours = colours.resize(size, Image.Resampling.BILINEAR)
            values = values.resize(size, Image.Resampling.NEAREST)  # noqa: PLW2901
        return np.asarray(colours), np.asarray(values)


def _read_image(path: Path) -> Image.Image:
    with readable(path):
        return open_image(path.read_bytes())


def _size(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
