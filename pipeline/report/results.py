"""Results: the measurements of a plan as tidy tables, and the columns of these tables."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from pipeline.config.experiment import Experiment
from pipeline.report.metric import Metric

KEY = ["method", "phase", "seed"]
EVALUATED = [
    "test_examples",
    "test_score",
    "test_loss",
    "val_score",
    "calibration_error",
    "worst_class",
    "worst_class_name",
    "speedup",
    "macs",
    "nonzeros",
]
ROLES = ["best_candidate", "mean_candidate", "ensemble"]
BEST_BY_TEST = "best_candidate_by_test"  # the highest test score of the candidates
COMPARED = [
    *[f"{role}_{split}" for role in ROLES for split in ("val_score", "test_score")],
    BEST_BY_TEST,
    "included",
    "l2_mean",
    "l2_max",
    "angle_mean_degrees",
]
AVERAGED = ["sparsity_of_mean", "sparsity_of_mean_unaligned"]  # before re-pruning
ROBUST = ["ood_accuracy_15", "ood_accuracy_19", "mce", "ood_synthetic", "ood_about", "ood_images"]
SHRUNK = [  # of the network without its pruned filters
    "parameters_removed",
    "bytes_removed",
    "macs_speedup",
    "latency_masked_ms_1",
    "latency_removed_ms_1",
    "measured_speedup_1",
    "latency_masked_ms_64",
    "latency_removed_ms_64",
    "measured_speedup_64",
]
COLUMNS = [
    *KEY,
    "metric",
    "sparsity",
    *EVALUATED,
    "stored_bytes",
    *AVERAGED,
    "test_worst_group",
    *COMPARED,
    *ROBUST,
    "model",
]
TABLES = {
    "candidates": [*KEY, "candidate", "test_score"],
    "layers": [*KEY, "layer", "sparsity"],
    "groups": [*KEY, "split", "set", "group", "n", "score", "low", "high"],
    "corruptions": [*KEY, "corruption", "severity", "accuracy"],
    "filters": [*KEY, "layer", "kept", "filters"],
    "training": ["node", "phase", "epoch", "loss", "accuracy", "val_accuracy", "learning_rate"],
}


@dataclass
class Results:
    """All measurements of a plan; scores and sparsities are fractions in [0, 1].

    ``rows`` has one row per method, phase and seed. The other tables (`TABLES`) have the same keys
    and one row per candidate, layer, group, corruption or filter; training has one per epoch.
    ``planned`` lists method, phase and sparsity: the dense network, the soups, the others.
    ``soups`` are the methods that merge candidates of one mask. ``metric`` names the score in the
    columns ``score`` and ``*_score``. With N:M pruning ``dense_layers`` are the layers that it
    leaves dense, and ``sparsity`` that of all prunable weights after the last phase. With a budget
    ``trained_images`` has the training images that each method's last network took.
    """

    params: Experiment
    planned: list[tuple[str, int, float]]
    missing: list[str]
    rows: pd.DataFrame
    soups: list[str]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    metric: Metric = field(default_factory=Metric)
    dense_layers: list[str] = field(default_factory=list)
    sparsity: float | None = None
    trained_images: dict[str, int] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """All methods, in the order of ``planned``."""
        return list(dict.fromkeys(method for method, _, _ in self.planned))

    @property
    def phases(self) -> dict[int, float]:
        """The planned sparsity of each phase from 1 on."""
        return {phase: sparsity for _, phase, sparsity in sorted(self.planned) if phase > 0}

    @property
    def final(self) -> int:
        """The last phase."""
        return max((phase for _, phase, _ in self.planned), default=0)

    @cached_property
    def cells(self) -> dict[tuple[str, int], dict[int, dict[str, Any]]]:
        """The rows as dictionaries: by method and phase, then by seed."""
        cells: dict[tuple[str, int], dict[int, dict[str, Any]]] = {}
        for row in self.rows.to_dict("records"):
            record = {str(name): value for name, value in row.items()}
            cells.setdefault((record["method"], record["phase"]), {})[record["seed"]] = record
        return cells

    @property
    def by_group(self) -> list[str]:
        """The columns of ``rows`` with the mean and the recall of each of a few named groups."""
        starts = ("test_group_mean", "test_recall/")
        return [name for name in self.rows.columns if name.startswith(starts)]

    @property
    def shrunk(self) -> bool:
        """Whether any network had its pruned filters removed."""
        return not self.tables["filters"].empty

    def at_end(self, table: str) -> pd.DataFrame:
        """Return the rows of a table for the last phase and the dense network."""
        frame = self.rows if table == "rows" else self.tables[table]
        return frame[(frame["phase"] == self.final) | (frame["method"] == "dense")]
