"""Decoder of image files: opened as RGB, resized, and cropped to a square."""

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
# Images that a thread decodes at once. Decoding a photograph releases the interpreter's lock, so
# threads halve the time; for thumbnails they gain nothing, and in chunks of this size cost nothing.
CHUNK = 512
# Of all formats that Pillow knows: others, such as EPS, are decoded by other programs.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MOST = 89_478_485  # pixels of an image, decoded or resized: Pillow's limit, 268 MB of RGB


def load_images(paths: Sequence[Path], size: int) -> NDArray[np.uint8]:
    """Return the images in ``paths`` as uint8 [N, 3, size, size], in that order.

    Raises:
        UserError: a file is not a readable image; the message names the first.
    """
    images = np.empty((len(paths), 3, size, size), dtype=np.uint8)

    def fill(row: int) -> None:
        images[row] = decode(paths[row], size)

    fill_rows(fill, len(paths), CHUNK)
    return images


def fill_rows(fill: Callable[[int], None], rows: int, chunk: int = 1) -> None:
    """Call ``fill`` for each row on all cores, ``chunk`` rows at a time; raise its first error."""

    def work(start: int) -> None:
        for row in range(start, min(start + chunk, rows)):
            fill(row)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(work, range(0, rows, chunk)):
            pass  # raises the error of its chunk


@contextmanager
def readable(path: Path | str) -> Iterator[None]:
    """Turn any exception of a damaged image file into a UserError that names the file."""
    try:
        yield
    except Exception as error:  # a damaged file may raise anything
        raise UserError(
            f"{path} cannot be read as an image ({error}): get it again, or remove it"
        ) from error


def open_image(blob: bytes) -> Image.Image:
    """Return the image in ``blob``; its EXIF orientation is ignored, as in torchvision.

    Raises:
        ValueError: it has more than `MOST` pixels. Pillow raises other exceptions.
    """
    # From memory, since Pillow makes 40 small reads an image, each a system call on a file.
    image = Image.open(io.BytesIO(blob), formats=FORMATS)
    _refuse_large(*image.size, "has")
    image.load()
    return image


def rgb(image: Image.Image) -> Image.Image:
    """Return ``image`` in three channels of 8 bits."""
    return image if image.mode == "RGB" else image.convert("RGB")


def short_side(size: int) -> int:
    """Return the short side to which an image is resized before ``size`` pixels are cropped."""
    return size * 256 // 224


def resized(image: Image.Image, short: int) -> Image.Image:
    """Return ``image`` with its short side of ``short`` pixels, rounded as torchvision's Resize.

    Resampling is bilinear with antialiasing; an image of that size already is not resampled.
    """
    width, height = image.size
    side = min(width, height)
    if side == short:
        return image
    size = short * width // side, short * height // side
    _refuse_large(*size, "would be resized to")
    return image.resize(size, Image.Resampling.BILINEAR)


def _refuse_large(width: int, height: int, verb: str) -> None:
    if width * height > MOST:
        raise ValueError(f"it {verb} {width}x{height} pixels, and at most {MOST:,} are read")


def centre_crop(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Return the central square, uint8 [size, size, 3], rounded as torchvision's CenterCrop."""
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def decode(path: Path, size: int) -> NDArray[np.uint8]:
    """Return one image as RGB, uint8 [3, size, size]: short side to ``size``, then the centre.

    Raises:
        UserError: the file is not a readable image of 8 bits a channel.
    """
    with readable(path):
        image = open_image(path.read_bytes())
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"mode {image.mode} has more than 8 bits a channel")
        pixels = centre_crop(resized(rgb(ImageOps.exif_transpose(image)), size), size)
    return pixels.transpose(2, 0, 1)


def evaluation_square(blob: bytes, size: int) -> NDArray[np.uint8]:
    """Return the square of torchvision's usual evaluation, uint8 [size, size, 3]."""
    return centre_crop(resized(rgb(open_image(blob)), short_side(size)), size)


def crop_and_resize(blob: bytes, crop: list[int], size: int) -> NDArray[np.uint8]:
    """Return the part ``crop`` of an image resized to uint8 [size, size, 3]."""
    top, left, height, width, mirrored = crop
    box = (left, top, left + width, top + height)
    # Cropped first, since resize(box=...) would read pixels beyond the border of the box.
    image = rgb(open_image(blob)).crop(box).resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[:, ::-1] if mirrored else pixels
