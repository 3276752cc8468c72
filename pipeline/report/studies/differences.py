"""Differences of two measures seed by seed, with their 95 % intervals, as cells of tables."""

from functools import partial

import pandas as pd

from pipeline.report.statistics import difference
from pipeline.report.tables.markdown import NONE, signed


def by_seed(rows: pd.DataFrame, measure: str) -> dict[int, float]:
    """Return the mean of ``measure`` over the rows of each seed that has it."""
    known = rows.dropna(subset=[measure])
    seeds = known["seed"].unique().tolist()
    return {seed: float(known.loc[known["seed"] == seed, measure].mean()) for seed in seeds}


def cell(
    ours: dict[int, float], theirs: dict[int, float], *, scale: float = 100, digits: int = 2
) -> str:
    """Return ``ours`` minus ``theirs`` times ``scale``: ``+0.34 (+0.10 to +0.58), n = 3``.

    In brackets is the 95 % interval of the mean (pipeline/report/statistics.py), where there is
    one; it is not corrected for the number of cells.
    """
    values = difference(ours, theirs)
    if values is None:
        return NONE
    show = partial(signed, digits=digits)
    text = show(scale * values.mean)
    if values.interval is not None:
        text += " ({} to {})".format(*(show(scale * end) for end in values.interval))
    return f"{text}, n = {values.n}"
