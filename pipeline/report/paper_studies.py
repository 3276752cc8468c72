"""What the paper prints of the analyses that our studies repeat: Tables 16, 17 and 18."""

from functools import cache

import pandas as pd

from pipeline.params import Experiment
from pipeline.report.paper import FOLDER, Reference, departures


@cache
def _table(name: str) -> pd.DataFrame:
    return pd.read_csv(FOLDER / f"{name}.csv")


def published(params: Experiment, name: str) -> pd.DataFrame:
    """Return the rows of table ``name`` on this recipe's data and network, trained as it says."""
    rows = _table(name)
    if params.paper is None or departures(params):
        return rows.iloc[:0]
    same = (rows["dataset"] == params.paper.dataset) & (rows["arch"] == params.paper.arch)
    return rows[same]


def l2_distances(params: Experiment) -> dict[float, float]:
    """Return Table 18's mean L2 distance of two candidates of five, by sparsity as a fraction."""
    if params.m != 5:
        return {}
    rows = published(params, "l2_distance")
    return {
        round(sparsity / 100, 6): float(distance)
        for sparsity, distance in zip(rows["sparsity"], rows["mean_l2_distance"], strict=True)
    }


def reference(rows: pd.DataFrame) -> Reference | None:
    """Return the number that ``rows`` of Table 16 or 17 consist of, or None if there is none."""
    if len(rows) != 1:
        return None
    row = rows.iloc[0]
    return Reference(float(row["top1_mean"]), float(row["top1_std"]), int(row["table"]))
