"""Task: the loss, the predictions that are kept, and the score by which models are compared.

A task is one file of this folder with a constant ``TASK``; the loop, pruning, merging, the graph
and the report do not depend on which one runs. Positions whose label is
`pipeline.data.base.IGNORE` count neither in the loss nor in a metric.

Further measures of the test split are the function ``summary`` of the file of the same name in
pipeline/evaluate, on which training does not depend.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from pipeline import registry
from pipeline.errors import UserError
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

    def scores_shape(self, labels: Tensor, classes: int) -> tuple[int | None, ...] | None:  # noqa: ARG002
        """Return the shape that a network's scores of examples with ``labels`` must have.

        None stands for any size; without a shape, the default, the task takes any scores.
        """
        return None


WRITTEN = ("predict", "measure")  # functions that every task has of its own
ATTRIBUTES = tuple(name for name in (*dir(Task), "metric") if not name.startswith("_"))


def load(name: str) -> Task:
    """Return the task ``name``, a file of this folder or one of the user's.

    Raises:
        UserError: there is none, or it lacks a part of `Task`.
    """
    task: Any = registry.load("tasks", name, "task").TASK
    lacking = [each for each in ATTRIBUTES if not hasattr(task, each)]
    lacking += [each for each in WRITTEN if getattr(type(task), each, None) is getattr(Task, each)]
    if not lacking and not (isinstance(task.metric, str) and task.metric.isidentifier()):
        lacking = ["metric"]
    if lacking:
        raise UserError(
            f"task is {name!r}, which has no {', '.join(lacking)}: make it an object of a class "
            "that is derived from pipeline.tasks.base.Task and has metric, a name, and "
            f"{' and '.join(WRITTEN)}"
        )
    return task  # type: ignore[no-any-return]


def check_measures(task: Task, name: str, measures: Any) -> None:
    """Refuse what ``measure`` of the task, perhaps in a file of the user's, should not return.

    Raises:
        UserError: it is no dict with the score, under its name, and the loss as numbers.
    """
    wrong = not isinstance(measures, dict) or [
        key for key in (task.metric, "loss") if not isinstance(measures.get(key), int | float)
    ]
    if wrong:
        raise UserError(
            f"task is {name!r}, whose measure returns {measures!r:.200}: it must return a dict of "
            f"numbers with the keys {task.metric} and loss"
        )


def score(task: Task, predictions: Tensor, split: "Split", data: "Dataset") -> float:
    """Return the task's score of ``predictions`` on one split."""
    return task.measure(predictions, split, data)[task.metric]
