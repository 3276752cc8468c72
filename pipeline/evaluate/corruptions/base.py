"""CorruptedSet: the interface of corrupted test sets, stored or generated."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from pipeline.train.predict import batch_on


class CorruptedSet(Protocol):
    """A test set under several corruptions at severities 1 to 5, read in batches."""

    @property
    def names(self) -> Sequence[str]:
        """The corruptions: all 19, or the main 15."""

    @property
    def synthetic(self) -> bool:
        """Whether it was generated here, so that results do not compare with published ones."""

    @property
    def about(self) -> str:
        """A short description of the images for a reader of results."""

    def batches(self, corruption: str, severity: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images, uint8 [B, C, H, W], and labels, int64 [B], in a fixed order."""


def set_batch_size(height: int, width: int) -> int:
    """Return the batch size for images of ``height`` x ``width`` pixels.

    It is that of a GPU; on the CPU such a batch is split into several whole CPU batches.
    """
    image = torch.empty(1, 1, 1, 1, dtype=torch.uint8).expand(1, 1, height, width)
    return batch_on(torch.device("cuda"), image)
