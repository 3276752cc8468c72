"""Task: the loss, the predictions that are kept, and the score by which models are compared.

A task is one file of this folder with a constant ``TASK``; the loop, pruning, merging, the graph
and the report do not depend on which one runs. Positions whose label is
`pipeline.data.base.IGNORE` count neither in the loss nor in a metric.

Further measures of the test split are the function ``summary`` of the file of the same name in
pipeline/evaluate, on which training does not depend.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn

from pipeline import registry
from pipeline.train.criterion import Criterion

if TYPE_CHECKING:
    from pipeline.data.base import Dataset, Split


class Task(Criterion, Protocol):
    """One kind of problem; its loss is the cross-entropy unless it overrides it."""

    # The score's name in every file (val_<metric>, test_<metric>): a fraction in [0, 1], which
    # the report prints in percent; higher is better.
    metric: str

    def predict(self, model: nn.Module, data: "Dataset", split: "Split") -> Tensor:
        """Return the predictions on ``split`` that `measure` needs, on the CPU."""

    def measure(self, predictions: Tensor, split: "Split", data: "Dataset") -> dict[str, float]:
        """Return the score of ``predictions`` under its name, and their ``loss``."""

    def ensemble(self, predictions: Sequence[Tensor]) -> Tensor | None:
        """Return the ensemble of several networks' predictions; None if the task has none."""

    def served(self, scores: Tensor) -> Tensor:
        """Return the outputs of the registered model: the probabilities of the classes."""
        return scores.softmax(1)


def load(name: str) -> Task:
    """Return the task ``name``, a file of this folder."""
    task: Task = registry.load("tasks", name, "task").TASK
    return task


def score(task: Task, predictions: Tensor, split: "Split", data: "Dataset") -> float:
    """Return the task's score of ``predictions`` on one split."""
    return task.measure(predictions, split, data)[task.metric]
