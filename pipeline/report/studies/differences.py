"""Differences of two measures seed by seed, with their 95 % intervals, as cells of tables."""

import pandas as pd

from pipeline.report.statistics import difference
from pipeline.report.tables.markdown import NONE


def by_seed(rows: pd.DataFrame, measure: str) -> dict[int, float]:
    """Return the mean of ``measure`` over the rows of each seed that has it."""
    known = rows.dropna(subset=[measure])
    seeds = known["seed"].unique().tolist()
    return {seed: float(known.loc[known["seed"] == seed, measure].mean()) for seed in seeds}


def cell(ours: dict[int, float], theirs: dict[int, float], *, scale: float = 100) -> str:
    """Return ``ours`` minus ``theirs`` times ``scale``: ``+0.34 (+0.10 to +0.58), n = 3``.

    In brackets is the 95 % interval of the mean (pipeline/report/statistics.py), where there is
    one; it is not corrected for the number of cells. Three digits are shown.
    """
    values = difference(ours, theirs)
    if values is None:
        return NONE
    text = signed(scale * values.mean)
    if values.interval is not None:
        text += " ({} to {})".format(*(signed(scale * end) for end in values.interval))
    return f"{text}, n = {values.n}"


def signed(value: float) -> str:
    """Return ``value`` with its sign and at most two decimals; below 0.1, three digits."""
    text = f"{value:+.2f}" if abs(value) >= 0.1 else f"{value:+.3g}"
    return "0" if float(text) == 0 else text
