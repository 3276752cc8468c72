"""What a corrupted test set is, wherever its images come from."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from pipeline.train.predict import batch_on


class CorruptedSet(Protocol):
    """A test set under several corruptions at severities 1 to 5, a batch of it in memory."""

    @property
    def names(self) -> Sequence[str]:
        """The corruptions: all 19, or the main 15."""

    @property
    def synthetic(self) -> bool:
        """Whether it was made here, so that it must not be laid beside published numbers."""

    @property
    def about(self) -> str:
        """What the images are, in a few words for a reader of results."""

    def batches(self, corruption: str, severity: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images, uint8 [B, C, H, W], and labels, int64 [B], in an order that is fixed."""


def set_batch_size(height: int, width: int) -> int:
    """Return how many images of ``height`` x ``width`` pixels a network is given at once.

    They are a GPU's batch; a CPU splits them into several whole ones.
    """
    image = torch.empty(1, 1, 1, 1, dtype=torch.uint8).expand(1, 1, height, width)
    return batch_on(torch.device("cuda"), image)
