"""What is learned: the loss, what is kept of a network's outputs, and what "better" means.

A task is one file of this folder with a constant ``TASK``; the loop, pruning, merging, the graph
and the report do not know which one runs. Where a label is `pipeline.data.base.IGNORE`, the
position counts neither in the loss nor in a metric.

What is measured beyond that, in the evaluation of the test split, is the function ``summary`` of
the file of the same name in pipeline/evaluate: training does not depend on it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn

from pipeline import registry
from pipeline.train.criterion import Criterion

if TYPE_CHECKING:
    from pipeline.data.base import Dataset, Split


class Task(Criterion, Protocol):
    """One kind of problem; its loss is the cross-entropy, if it has no other."""

    # The score's name in every file (val_<metric>, test_<metric>): a fraction in [0, 1], which
    # the report prints in percent; higher is better.
    metric: str

    def predict(self, model: nn.Module, data: "Dataset", split: "Split") -> Tensor:
        """Return what `measure` needs to know of the outputs on ``split``, on the CPU."""

    def measure(self, predictions: Tensor, split: "Split", data: "Dataset") -> dict[str, float]:
        """Return the score of ``predictions`` under its name, and their ``loss``."""

    def ensemble(self, predictions: Sequence[Tensor]) -> Tensor | None:
        """Return the predictions of several networks together; None where that has no meaning."""

    def served(self, scores: Tensor) -> Tensor:
        """Return what the registered model puts out: the probabilities of the classes."""
        return scores.softmax(1)


def load(name: str) -> Task:
    """Return the task ``name``, a file of this folder."""
    task: Task = registry.load("tasks", name, "task").TASK
    return task


def score(task: Task, predictions: Tensor, split: "Split", data: "Dataset") -> float:
    """Return what "better" means, on one split."""
    return task.measure(predictions, split, data)[task.metric]
