"""Correlations of measures over networks, with the means of their groups taken out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from pipeline.report.tables.markdown import NONE


@dataclass(frozen=True)
class Correlation:
    """Pearson's r within k groups of n points in all, with its 95 % interval.

    The interval is tanh(atanh(r) ± 1.96 / sqrt(n - k - 2)) (Fisher): taking out k means leaves
    n - k + 1 points' worth of freedom. None where that is not positive, or where |r| = 1.
    """

    n: int
    r: float
    interval: tuple[float, float] | None

    def __str__(self) -> str:
        """Return ``+0.52 (+0.10 to +0.78), n = 24``."""
        ends = "" if self.interval is None else " ({:+.2f} to {:+.2f})".format(*self.interval)
        return f"{self.r:+.2f}{ends}, n = {self.n}"


def within(rows: pd.DataFrame, x: str, y: str, by: Sequence[str]) -> Correlation | None:
    """Return the correlation of ``x`` and ``y`` after each group's means are subtracted.

        r = sum (x - x_g)(y - y_g) / sqrt(sum (x - x_g)^2 sum (y - y_g)^2)

    It is the partial correlation given the group: differences between groups do not count.

    Args:
        rows: one point each; those without x or y, and groups of one point, are left out.
        x: a column.
        y: another column.
        by: the columns whose values make a group.

    Returns:
        None with fewer than three points or without variation.

    """
    known = rows.dropna(subset=[x, y])
    known = known[known.groupby(list(by))[x].transform("size") > 1]
    if len(known) < 3:
        return None
    groups = known.groupby(list(by))
    dx, dy = (
        (known[column] - groups[column].transform("mean")).to_numpy(dtype=float)
        for column in (x, y)
    )
    scale = math.sqrt(float(dx @ dx) * float(dy @ dy))
    if scale <= 0:
        return None
    r = float(np.clip(dx @ dy / scale, -1, 1))
    return Correlation(len(known), r, _interval(r, len(known) - groups.ngroups - 2))


def _interval(r: float, freedom: int) -> tuple[float, float] | None:
    if freedom < 1 or abs(r) >= 1:
        return None
    half = float(special.ndtri(0.975)) / math.sqrt(freedom)
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def cell(correlation: Correlation | None) -> str:
    """Return a cell of a table."""
    return NONE if correlation is None else str(correlation)
