"""GeneratedSet: a corrupted set too large to store, generated in blocks by every evaluation.

A set of 224-pixel images takes 14 MB for each test image. Sets above `LARGEST_STORED` are generated
block by block, in threads, whenever they are read. Each block has its own seeds, so neither threads
nor an interruption changes a bit. Generation takes seconds of one core for each test image, so at
most `MOST` test images, drawn with a fixed seed, are used.
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
BLOCK = 32  # images with one seed; it affects the random draws


@dataclass(frozen=True)
class GeneratedSet:
    """A `CorruptedSet` that is generated while it is read.

    Args:
        test: the clean images and labels.
        constants: "cifar" or "imagenet".
        seed: of the drawn images and their corruptions.
        most: the largest number of test images used; of more, a random subset.
    """

    test: Split
    constants: str
    seed: int
    most: int = MOST
    names: Sequence[str] = NAMES_19
    synthetic: bool = True

    @property
    def about(self) -> str:
        """The benchmark of the constants, and the number of images."""
        used, n = len(self.rows()), len(self.test)
        which = "the" if used == n else f"{used:,} of the {n:,}"
        return f"{which} test images with {BENCHMARKS[self.constants]}'s constants"

    def rows(self) -> Tensor:
        """Return the indices of the test images used, int64 [min(N, most)], in order."""
        generator = torch.Generator().manual_seed(derive(self.seed, "corruption", "images"))
        return torch.randperm(len(self.test), generator=generator)[: self.most].sort().values

    def batches(self, corruption: str, severity: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels, generated in threads, as in `CorruptedSet`."""
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
    """Say whether the set of test images of ``shape`` [N, C, H, W] is too large to store."""
    return torch.Size(shape).numel() * len(NAMES_19) * len(SEVERITIES) > LARGEST_STORED
