"""Metric: the score of a task, by its key in metrics.json and in words.

In the tables of the report the score is ``test_score`` and ``val_score``, whatever the task; the
column ``metric`` of ``results.csv`` and of ``metrics.json`` names it.
"""

from dataclasses import dataclass
from typing import Any

SPLITS = ("train", "val", "test")
_SPELLED = {"iou": "IoU", "bleu": "BLEU"}


@dataclass(frozen=True)
class Metric:
    """The score called ``name`` in pipeline/tasks, as accuracy or mean_iou."""

    name: str = "accuracy"

    @property
    def group_key(self) -> str:
        """The key of the score of one class or group: iou for mean_iou, recall for accuracy."""
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
        """Further columns of scores: the share of correct pixels or tokens."""
        return [] if self.name == "accuracy" else ["test_accuracy"]

    def rename_scores(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """Return ``metrics`` with the key SPLIT_NAME called SPLIT_score, nested tables included."""
        names = {f"{split}_{self.name}": f"{split}_score" for split in SPLITS}
        return {
            names.get(key, key): self.rename_scores(value)
            if isinstance(value, dict) and not names.keys().isdisjoint(value)
            else value
            for key, value in metrics.items()
        }


def capital(text: str) -> str:
    """Return ``text`` with a capital first letter."""
    return text[:1].upper() + text[1:]


def _spelled(name: str) -> str:
    return " ".join(_SPELLED.get(part, part) for part in name.split("_"))
