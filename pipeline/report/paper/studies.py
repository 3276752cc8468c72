"""Looks up the paper's numbers for studies: Tables 16 to 18."""

from typing import Any

import pandas as pd

from pipeline.config.experiment import Experiment
from pipeline.report.paper.lookup import Reference, departures, paper_table

# The settings of a table: Tables 16 and 17 repeat Table 1, and Table 18 has five candidates.
_TABLE_1 = {"phases": 3, "target_sparsity": 0.9, "retrain.epochs": 10}
_SETTINGS: dict[str, dict[str, Any]] = {
    "more_phases": _TABLE_1 | {"retrain.schedule": "ALLR"},
    "swa": _TABLE_1,
    "l2_distance": {"m": 5},
}


def published(params: Experiment, name: str) -> pd.DataFrame:
    """Return the rows of table ``name`` if this experiment is the paper's, and none otherwise."""
    rows = paper_table(name)
    if params.paper is None or departures(params):
        return rows.iloc[:0]
    same = (rows["dataset"] == params.paper.dataset) & (rows["arch"] == params.paper.arch)
    return rows[same] if params.with_values(_SETTINGS[name]) == params else rows.iloc[:0]


def l2_distances(params: Experiment) -> dict[float, float]:
    """Return Table 18's mean L2 distance of two of five candidates, by sparsity as a fraction."""
    rows = published(params, "l2_distance")
    return {
        round(sparsity / 100, 6): float(distance)
        for sparsity, distance in zip(rows["sparsity"], rows["mean_l2_distance"], strict=True)
    }


def reference(rows: pd.DataFrame) -> Reference | None:
    """Return the number of the only row of Table 16 or 17 in ``rows``; None unless there is one."""
    if len(rows) != 1:
        return None
    row = rows.iloc[0]
    return Reference(float(row["top1_mean"]), float(row["top1_std"]), int(row["table"]))
