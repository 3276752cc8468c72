"""NpySet: a corrupted set in CIFAR-C's layout, downloaded or generated.

NAME.npy     uint8 [5 N, H, W, C], severity s = rows (s - 1) N to s N; one file a corruption
labels.npy   integers [5 N]
meta.json    only beside a generated set: {constants, synthetic: true}

Official sets have no meta.json, which distinguishes them from generated ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.formats.prefetch import prefetch
from pipeline.errors import UserError
from pipeline.evaluate.corruptions.base import set_batch_size
from pipeline.evaluate.corruptions.constants import BENCHMARKS, NAMES_19, OFFICIAL, SEVERITIES
from pipeline.storage.atomic_files import read_json

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class NpySet:
    """A `CorruptedSet` in arrays.

    Args:
        images: by corruption, uint8 [5 N, H, W, C], memory-mapped.
        labels: int64 [5 N].
        synthetic: generated here, so not comparable with published numbers.
        about: a short description of the images.
    """

    images: Mapping[str, Images]
    labels: NDArray[np.int64]
    synthetic: bool
    about: str = ""

    @property
    def names(self) -> Sequence[str]:
        """The corruptions."""
        return tuple(self.images)

    def batches(self, corruption: str, severity: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels, read in threads, as in `CorruptedSet`."""
        source, n = self.images[corruption], len(self.labels) // len(SEVERITIES)
        step, first = set_batch_size(*source.shape[1:3]), (severity - 1) * n

        def read_from(start: int) -> tuple[Tensor, Tensor]:
            rows = slice(start, min(start + step, first + n))
            images = source[rows].transpose(0, 3, 1, 2).copy()
            return torch.from_numpy(images), torch.from_numpy(self.labels[rows])

        return prefetch(read_from, range(first, first + n, step))


def _load(path: Path) -> NDArray[Any]:
    try:
        return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: unpack the whole archive there ({OFFICIAL}), or remove the folder "
            "to generate a synthetic set"
        ) from None
    except Exception as error:  # a damaged header may raise anything
        raise UserError(f"{path} is not a whole .npy file: download it again.") from error


def read(folder: Path, names: Sequence[str] = NAMES_19) -> NpySet:
    """Open the set in ``folder`` without reading the images.

    Raises:
        UserError: a file is missing, damaged, or not of the layout.
    """
    labels = _load(folder / "labels.npy")
    whole = labels.ndim == 1 and len(labels) and not len(labels) % len(SEVERITIES)
    if not whole or labels.dtype.kind not in "iu":
        raise UserError(
            f"{folder / 'labels.npy'} is {labels.dtype} {labels.shape}, not five times N integers: "
            "download it again."
        )
    images: dict[str, Images] = {}
    for name in names:
        path = folder / f"{name}.npy"
        array = images[name] = _load(path)
        size = images[names[0]].shape[1:]
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1:] != size:
            raise UserError(
                f"{path} is {array.dtype} {array.shape}, not uint8 [5 N, H, W, C] of the other "
                "files' size: download it again."
            )
        if len(array) != len(labels):
            raise UserError(
                f"{path} has {len(array)} images but labels.npy {len(labels)} labels: "
                "download both again."
            )
    meta = read_json(folder / "meta.json") if (folder / "meta.json").exists() else {}
    if not isinstance(meta, dict):
        raise UserError(f"{folder / 'meta.json'} must be a JSON object: delete it")
    synthetic = bool(meta.get("synthetic"))
    constants = BENCHMARKS.get(str(meta.get("constants", "")), "other")
    about = f"the test images with {constants}'s constants" if synthetic else f"`{folder}`"
    return NpySet(images, np.array(labels, np.int64), synthetic, about)
