"""What a training step minimises, and what it counts as right: the cross-entropy, if nothing else.

In every task of the paper a network scores K classes at each position of an example (one in
classification, a pixel in segmentation, a token in translation): scores are float [B, K, ...] and
labels int64 [B, ...], `IGNORE` (-100) where a position does not count. A task of another kind
overrides these functions (pipeline/tasks/base.py).
"""

from typing import Protocol

from torch import Tensor
from torch.nn.functional import cross_entropy


class Criterion(Protocol):
    """A loss with its measure of success; a subclass overrides what differs."""

    def loss(
        self, scores: Tensor, labels: Tensor, *, smoothing: float = 0.0, reduction: str = "mean"
    ) -> Tensor:
        """Return what training minimises: the cross-entropy of the positions that count.

        Arguments: smoothing, of the labels, in [0, 1); reduction, "mean" or "sum", over positions.
        """
        return cross_entropy(scores, labels, label_smoothing=smoothing, reduction=reduction)

    def correct(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return at how many of the positions that count the label scores highest, int64 []."""
        return (scores.argmax(1) == labels).sum()

    def counted(self, labels: Tensor) -> Tensor:
        """Return how many positions count, int64 []."""
        return (labels >= 0).sum()


class CrossEntropy(Criterion):
    """The criterion of every task of the paper."""
