"""Decoder of image files: opened as RGB, resized, and cut to the square that a network sees."""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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

    def fill(row: int) -> None:
        images[row] = decode(paths[row], size)

    fill_rows(fill, len(paths), STRETCH)
    return images


def fill_rows(fill: Callable[[int], None], rows: int, stretch: int = 1) -> None:
    """Call ``fill`` for each row on all cores, ``stretch`` at a time; raise its first error."""

    def work(start: int) -> None:
        for row in range(start, min(start + stretch, rows)):
            fill(row)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(work, range(0, rows, stretch)):
            pass  # draws out an error of that stretch


@contextmanager
def readable(path: Path | str) -> Iterator[None]:
    """Turn any error of a damaged image file into a UserError that names it."""
    try:
        yield
    except Exception as error:  # a damaged file may raise anything
        raise UserError(
            f"{path} cannot be read as an image ({error}): get it anew, or take it out"
        ) from error


def opened(blob: bytes) -> Image.Image:
    """Return the image in ``blob`` as it is stored: torchvision turns none by its EXIF."""
    # From memory: Pillow makes 40 small reads an image, and each costs a system call.
    image = Image.open(io.BytesIO(blob))
    image.load()
    return image


def rgb(image: Image.Image) -> Image.Image:
    """Return ``image`` in three channels of 8 bits."""
    return image if image.mode == "RGB" else image.convert("RGB")


def short_side(size: int) -> int:
    """Return what the short side of an image is resized to before ``size`` pixels are cropped."""
    return size * 256 // 224


def resized(image: Image.Image, short: int) -> Image.Image:
    """Return ``image`` with its short side of ``short`` pixels, rounded as torchvision's Resize.

    Resampling is bilinear with antialiasing; an image of that size already is not resampled.
    """
    width, height = image.size
    side = min(width, height)
    if side == short:
        return image
    return image.resize((short * width // side, short * height // side), Image.Resampling.BILINEAR)


def centre(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Return the central square, uint8 [size, size, 3], rounded as torchvision's CenterCrop."""
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def decode(path: Path, size: int) -> NDArray[np.uint8]:
    """Return one image as RGB, uint8 [3, size, size]: short side to ``size``, then the centre.

    Raises:
        UserError: the file is no readable image of 8 bits a channel.
    """
    with readable(path):
        image = opened(path.read_bytes())
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"mode {image.mode} has more than 8 bits a channel")
        pixels = centre(resized(rgb(ImageOps.exif_transpose(image)), size), size)
    return pixels.transpose(2, 0, 1)


def square(blob: bytes, size: int) -> NDArray[np.uint8]:
    """Return the usual square of evaluation, uint8 [size, size, 3]."""
    return centre(resized(rgb(opened(blob)), short_side(size)), size)


def part(blob: bytes, crop: list[int], size: int) -> NDArray[np.uint8]:
    """Return the part ``crop`` of an image resized to uint8 [size, size, 3]."""
    top, left, height, width, mirrored = crop
    box = (left, top, left + width, top + height)
    # Pillow reads pixels beyond the box at its border, unless the part is cut out first.
    image = rgb(opened(blob)).crop(box).resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[:, ::-1] if mirrored else pixels
