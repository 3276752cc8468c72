"""Corrupted sets that would be too large to keep: generated anew, a block of images at a time.

A set of 224-pixel images takes 14 MB for each test image. Past `LARGEST_STORED` it is not stored:
every evaluation generates it again, block by block, in threads. Each block has seeds of its own, so
neither threads nor an interruption can change a bit. That costs seconds of one core for each such
image, so at most `MOST` of the test images, drawn once, are taken.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.data.base import Split
from pipeline.data.formats.prefetch import prefetch
from pipeline.evaluate.corruptions.constants import BENCHMARKS, NAMES_19, SEVERITIES
from pipeline.evaluate.corruptions.generate import generate
from pipeline.seeds import derive

LARGEST_STORED = 4 * 2**30  # bytes
MOST = 5000  # images
BLOCK = 32  # images with one seed; a part of what a seed means


@dataclass(frozen=True)
class GeneratedSet:
    """A `CorruptedSet` that is generated while it is read.

    Args:
        test: the clean images and labels.
        constants: "cifar" or "imagenet".
        seed: of everything random in it.
        most: how many of the images are taken, drawn at random where there are more.
    """

    test: Split
    constants: str
    seed: int
    most: int = MOST
    names: Sequence[str] = NAMES_19
    synthetic: bool = True

    @property
    def about(self) -> str:
        """The benchmark imitated, and how many images are taken."""
        taken, n = len(self.rows()), len(self.test)
        which = "the" if taken == n else f"{taken:,} of the {n:,}"
        return f"{which} test images with {BENCHMARKS[self.constants]}'s constants"

    def rows(self) -> Tensor:
        """Return which of the test images are taken, int64 [min(N, most)], in order."""
        generator = torch.Generator().manual_seed(derive(self.seed, "corruption", "images"))
        return torch.randperm(len(self.test), generator=generator)[: self.most].sort().values

    def batches(self, corruption: str, severity: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels, generated in threads, as `CorruptedSet` says."""
        blocks = torch.split(self.rows(), BLOCK)

        def block(number: int) -> tuple[Tensor, Tensor]:
            clean = self.test.take(blocks[number])
            images = generate(
                clean.images[:].permute(0, 2, 3, 1).contiguous().numpy(),
                corruption,
                severity,
                self.constants,
                derive(self.seed, "block", number),
            )
            return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), clean.labels

        return prefetch(block, range(len(blocks)))


def too_large(shape: Sequence[int]) -> bool:
    """Say whether test images of ``shape`` [N, C, H, W] would make a set too large to store."""
    return torch.Size(shape).numel() * len(NAMES_19) * len(SEVERITIES) > LARGEST_STORED
