"""Criterion of training: a loss and a count of correct predictions; cross-entropy by default.

In every task of the paper a network scores K classes at each position of an example (one in
classification, a pixel in segmentation, a token in translation): scores are float [B, K, ...] and
labels int64 [B, ...], `IGNORE` (-100) at positions that are not counted. Other kinds of tasks
override these functions (pipeline/tasks/base.py).
"""

from typing import Protocol

from torch import Tensor
from torch.nn.functional import cross_entropy


class Criterion(Protocol):
    """A loss and a count of correct predictions; a subclass overrides those that differ."""

    def observe(self, images: Tensor) -> None:  # noqa: ARG002
        """Look at the images of a batch before its loss is asked for, as distillation does."""
        return

    def loss(
        self, scores: Tensor, labels: Tensor, *, smoothing: float = 0.0, reduction: str = "mean"
    ) -> Tensor:
        """Return the loss that training minimises: the cross-entropy of the counted positions.

        Arguments: smoothing, of the labels, in [0, 1); reduction, "mean" or "sum", over positions.
        """
        return cross_entropy(scores, labels, label_smoothing=smoothing, reduction=reduction)

    def correct(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return at how many counted positions the label has the highest score, int64 []."""
        return (scores.argmax(1) == labels).sum()

    def counted(self, labels: Tensor) -> Tensor:
        """Return the number of counted positions, int64 []."""
        return (labels >= 0).sum()


class CrossEntropy(Criterion):
    """The criterion of every task of the paper."""
