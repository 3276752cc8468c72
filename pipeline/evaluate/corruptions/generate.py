"""Generation of the 19 corruptions of CIFAR-C and ImageNet-C for a batch of images."""

from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.evaluate.corruptions import blur, digital, elastic, noise, spatter, weather
from pipeline.evaluate.corruptions.constants import NAMES_19, SEVERITIES, TABLES
from pipeline.evaluate.corruptions.filters import Images
from pipeline.seeds import derive

MIN_SIZE = 8  # pixels
MAX_CIFAR_SIZE = 32  # pixels; larger images get ImageNet-C's constants
CHUNK = 2**16  # pixels corrupted at once, for the processor's cache; it affects the random draws

Corruption = Callable[[Images, Any, np.random.Generator], Images]
CORRUPTIONS: dict[str, Corruption] = {
    name: getattr(module, name)
    for name in NAMES_19
    for module in (noise, blur, weather, digital, elastic, spatter)
    if hasattr(module, name)
}


def constants_for(size: int) -> str:
    """Return the benchmark with constants for images of ``size`` pixels: "cifar" or "imagenet"."""
    return "cifar" if size <= MAX_CIFAR_SIZE else "imagenet"


def generate(
    images: Images, corruption: str, severity: int, constants: str | None = None, seed: int = 0
) -> Images:
    """Return ``images`` corrupted; equal arguments give equal bits.

    Args:
        images: uint8 [N, H, W, C], C = 1 or 3. For one channel, colours of overlays are converted
            to their luminance.
        corruption: one of NAMES_19.
        severity: 1 to 5.
        constants: "cifar" or "imagenet"; by default `constants_for` the size.
        seed: each corruption and severity derives its own random stream from it.

    Raises:
        UserError: the corruption, severity or constants do not exist, the images are too small, or
            they have other channels.
        ValueError: the images do not have that dtype and number of dimensions.
    """
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"images are {images.dtype} {images.shape}, not uint8 [N, H, W, C]")
    if images.shape[-1] not in (1, 3):
        raise UserError(
            f"images of {images.shape[-1]} channels cannot be corrupted, only those of 1 or 3: set "
            "evaluate.corruptions to none."
        )
    if min(images.shape[1:3]) < MIN_SIZE:
        raise UserError(
            f"images of {images.shape[1]} x {images.shape[2]} pixels are too small to corrupt: "
            f"set data.size to {MIN_SIZE} or more, or evaluate.corruptions to none."
        )
    table = constants or constants_for(max(images.shape[1:3]))
    if table not in TABLES:
        raise UserError(f"constants {table!r} do not exist: choose one of {sorted(TABLES)}.")
    if corruption not in CORRUPTIONS:
        raise UserError(f"corruption {corruption!r} does not exist: choose from {list(NAMES_19)}.")
    if severity not in SEVERITIES:
        raise UserError(f"severity {severity} does not exist: choose 1 to {len(SEVERITIES)}.")
    function, values = CORRUPTIONS[corruption], TABLES[table][corruption][severity - 1]
    rng = np.random.default_rng(derive(seed, "corruption", corruption, severity))
    step = max(1, CHUNK // (images.shape[1] * images.shape[2]))
    out = np.empty_like(images)
    for start in range(0, len(images), step):
        out[start : start + step] = function(images[start : start + step], values, rng)
    return out
