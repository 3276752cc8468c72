"""What is learned: the loss, what is kept of a network's outputs, and what "better" means.

A task is one file of this folder with a constant ``TASK``; the loop, pruning, merging, the graph
and the report do not know which one runs. In every task of the paper a network scores K classes at
each position of an example (one position in classification, a pixel in segmentation, a token in
translation): outputs are float [B, K, ...], targets int64 [B, ...], and those that are
`pipeline.data.base.IGNORE` are the positions that count neither in the loss nor in a metric. A task
of another kind has a ``loss`` and ``right`` of its own.
What is measured beyond that, in the evaluation of the test split, is the function ``summary`` of
the file of the same name in pipeline/evaluate: training does not depend on it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline import families

if TYPE_CHECKING:
    from pipeline.data.base import Dataset, Split


class Task(Protocol):
    """One kind of problem."""

    metric: str  # the score's name in every file: val_<metric>, test_<metric>; higher is better

    def loss(
        self, scores: Tensor, labels: Tensor, *, smoothing: float = 0.0, reduction: str = "mean"
    ) -> Tensor:
        """Return what training minimises: the cross-entropy of the positions that count.

        Arguments: scores, float [B, K, ...]; labels, int64 [B, ...]; smoothing, of the labels, in
        [0, 1); reduction, "mean" or "sum", over those positions.
        """
        return cross_entropy(scores, labels, label_smoothing=smoothing, reduction=reduction)

    def right(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return at how many of the positions that count the label scores highest, int64 []."""
        return (scores.argmax(1) == labels).sum()

    def predict(self, model: nn.Module, data: "Dataset", split: "Split") -> Tensor:
        """Return what `measure` needs to know of the outputs on ``split``, on the CPU."""

    def measure(self, predictions: Tensor, split: "Split", data: "Dataset") -> dict[str, float]:
        """Return the score of ``predictions`` under its name, and their ``loss``."""

    def ensemble(self, predictions: Sequence[Tensor]) -> Tensor | None:
        """Return the predictions of several networks together; None where that has no meaning."""


def load(name: str) -> Task:
    """Return the task ``name``, a file of this folder."""
    task: Task = families.load("tasks", name, "task").TASK
    return task


def score(task: Task, predictions: Tensor, split: "Split", data: "Dataset") -> float:
    """Return what "better" means, on one split."""
    return task.measure(predictions, split, data)[task.metric]
