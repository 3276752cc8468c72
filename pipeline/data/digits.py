"""Digits: the 1,797 handwritten digits, 8x8 and grey, that are part of scikit-learn.

They are the test part of the UCI set and have no official split; here a quarter of each class,
drawn with a fixed seed, is the test split: 1,347 images for training, 450 for testing.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
"""

from pathlib import Path

import torch
from torch import Tensor

from pipeline.data.base import RawData, Split, fixed_size
from pipeline.errors import UserError

TEST_FRACTION = 0.25
SPLIT_SEED = 0


def read(root: Path | None, size: int | None) -> RawData:
    """Return the digits, their 17 grey levels v scaled to round(255 v / 16)."""
    from sklearn import datasets  # type: ignore[import-untyped]  # noqa: PLC0415 - takes 2 s

    if root is not None:
        raise UserError(
            f"data.path is {root}, but the digits are part of scikit-learn: leave it null"
        )
    fixed_size("digits", size, 8)
    levels, target = datasets.load_digits(return_X_y=True)
    images = torch.from_numpy(levels * 255 / 16).round().to(torch.uint8).reshape(-1, 1, 8, 8)
    labels = torch.from_numpy(target).long()
    test = stratified(labels, TEST_FRACTION, SPLIT_SEED)
    everything = Split(images, labels)
    return RawData(
        train=everything.take((~test).nonzero().flatten()),
        test=everything.take(test.nonzero().flatten()),
        classes=tuple("0123456789"),
    )


def stratified(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """Return a random ``fraction`` of each class (rounded) as a mask, bool [N]."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(int(labels.max()) + 1):
        rows = (labels == label).nonzero().flatten()
        order = torch.randperm(len(rows), generator=generator)
        drawn[rows[order[: round(fraction * len(rows))]]] = True
    return drawn
