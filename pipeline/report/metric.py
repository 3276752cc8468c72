"""What "better" means in this run: how its score is called in files, on pages and in figures.

Inside the report a task's score is ``test_accuracy`` and ``val_accuracy``, and what a class or
group has of it is ``recall``, whatever they are: no table, figure or comparison has to know the
task. `Metric`, and nothing else, gives measurements these names as they are read, and their own
names back as files are written. For accuracy itself it changes nothing.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.plan.nodes import Plan
from pipeline.report.source import Source

POSITIONS = "position_accuracy"  # the share of pixels or tokens that are right, beside the score
_SPELLED = {"iou": "IoU", "bleu": "BLEU"}


@dataclass(frozen=True)
class Metric:
    """A score by its task's ``name``, as pipeline/tasks says: accuracy, mean_iou."""

    name: str = "accuracy"

    @property
    def group(self) -> str:
        """What one class or group has of it: what a mean is the mean of, or the recall."""
        return self.name.removeprefix("mean_") if self.name.startswith("mean_") else "recall"

    @property
    def columns(self) -> list[str]:
        """What the table of results has beside the columns that every task has."""
        return [] if self.name == "accuracy" else [POSITIONS]

    def inward(self, measured: Any) -> Any:
        """Return what a stage has measured, its keys renamed to the report's, tables in it too."""
        if self.name == "accuracy" or not isinstance(measured, dict):
            return measured
        return {self._inward(key): self.inward(value) for key, value in measured.items()}

    def outward(self, column: str) -> str:
        """Return what a column of the report is called in a file."""
        if self.name == "accuracy":
            return column
        own = re.sub(r"(?:(?<=test_)|(?<=val_))accuracy(?![^_])", self.name, column)
        return {"recall": self.group, POSITIONS: "test_accuracy"}.get(column, own)

    def named(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return ``table`` as it is written: its columns, and the measures it lists, by name."""
        if "measure" in table:
            table = table.assign(measure=table["measure"].map(self.outward))
        return table.rename(columns=self.outward)

    def said(self, text: str) -> str:
        """Return ``text``, which speaks of accuracy and recall, in the score's own words."""
        if self.name == "accuracy":
            return text
        for inside, word in (("accurac(?:y|ies)", self.name), ("recalls?", self.group)):
            own = _spelled(word)
            # Neither in names such as test_accuracy or accuracy.csv.
            text = re.sub(rf"\b{inside}\b(?!\.\w)", own, text)
            text = re.sub(rf"\b{inside.capitalize()}\b(?!\.\w)", own[0].upper() + own[1:], text)
        return text

    def _inward(self, key: str) -> str:
        if key.endswith(f"_{self.name}"):
            return key.removesuffix(self.name) + "accuracy"
        return {self.group: "recall", "test_accuracy": POSITIONS}.get(key, key)


def found(plan: Plan, artifacts: Path) -> Metric:
    """Return the metric that the evaluations of ``plan`` name; accuracy where there is none."""
    name = Source(artifacts, set()).evaluated(plan, "metric")
    return Metric() if name is None else Metric(str(name))


def _spelled(name: str) -> str:
    return " ".join(_SPELLED.get(word, word) for word in name.split("_"))
