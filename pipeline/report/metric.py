"""The score of a task: which measurement it is, and how pages and figures call it.

In the report's tables it is ``test_score`` and ``val_score``, whatever the task; ``results.csv``
and ``metrics.json`` name it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.plan.plan import Plan
from pipeline.report.source import Source

SPLITS = ("train", "val", "test")
_SPELLED = {"iou": "IoU", "bleu": "BLEU"}


@dataclass(frozen=True)
class Metric:
    """A score by its task's ``name``, as pipeline/tasks says: accuracy, mean_iou."""

    name: str = "accuracy"

    @property
    def group_key(self) -> str:
        """The measurement of one class or group: what a mean is the mean of, or the recall."""
        return self.name.removeprefix("mean_") if self.name.startswith("mean_") else "recall"

    @property
    def label(self) -> str:
        """The score in words: accuracy, mean IoU, BLEU."""
        return _spelled(self.name)

    @property
    def plural(self) -> str:
        """Several scores in words: accuracies, mean IoU."""
        return "accuracies" if self.name == "accuracy" else self.label

    @property
    def group(self) -> str:
        """The score of one class or group in words: recall, IoU."""
        return _spelled(self.group_key)

    @property
    def columns(self) -> list[str]:
        """Columns beside the score: the share of pixels or tokens that are right."""
        return [] if self.name == "accuracy" else ["test_accuracy"]

    def scores(self, measured: dict[str, Any]) -> dict[str, Any]:
        """Return a stage's metrics, and tables of metrics in them; the score is SPLIT_score."""
        names = {f"{split}_{self.name}": f"{split}_score" for split in SPLITS}
        return {
            names.get(key, key): self.scores(value)
            if isinstance(value, dict) and not names.keys().isdisjoint(value)
            else value
            for key, value in measured.items()
        }


def capital(text: str) -> str:
    """Return ``text`` as it begins a sentence."""
    return text[:1].upper() + text[1:]


def of(plan: Plan, artifacts: Path, without: Collection[str] = ()) -> Metric:
    """Return the metric that the evaluations of ``plan`` name; accuracy where there is none.

    What nodes in ``without`` have left is out of date.
    """
    name = Source(artifacts, set(without)).evaluated(plan, "metric")
    return Metric() if name is None else Metric(str(name))


def _spelled(name: str) -> str:
    return " ".join(_SPELLED.get(part, part) for part in name.split("_"))
