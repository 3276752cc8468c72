"""Correlations within groups are partial correlations given the group."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.report.studies.correlations import cell, within


def rows(seed: int, groups: int = 4, size: int = 5) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), size)
    x = generator.normal(size=len(group)) + 10 * group
    y = 0.6 * x + 0.5 * generator.normal(size=len(group)) - 20 * group
    return pd.DataFrame({"seed": group, "x": x, "y": y})


@pytest.mark.parametrize("seed", range(3))
def test_they_are_correlations_of_residuals_on_group_dummies(seed):
    """The residuals of least squares on one indicator a group, and Fisher's interval."""
    table = rows(seed)
    dummies = pd.get_dummies(table["seed"]).to_numpy(dtype=float)
    left = [
        column - dummies @ np.linalg.lstsq(dummies, column, rcond=None)[0]
        for column in (table["x"].to_numpy(), table["y"].to_numpy())
    ]
    found = within(table, "x", "y", ["seed"])
    assert found.n == 20
    assert found.r == pytest.approx(stats.pearsonr(*left).statistic)
    assert found.r > 0 > stats.pearsonr(table["x"], table["y"]).statistic, "groups differ"
    # n - k - 2 with k = 4 groups: three indicators beside the mean are controlled for
    half = 1.959964 / np.sqrt(20 - 3 - 3)
    assert found.interval == pytest.approx(
        (np.tanh(np.arctanh(found.r) - half), np.tanh(np.arctanh(found.r) + half)), abs=1e-6
    )


def test_one_group_is_pearsons_correlation_with_scipys_interval():
    table = rows(7, groups=1, size=12)
    theirs = stats.pearsonr(table["x"], table["y"])
    found = within(table, "x", "y", ["seed"])
    assert found.r == pytest.approx(theirs.statistic)
    assert found.interval == pytest.approx(tuple(theirs.confidence_interval()), abs=1e-9)
    assert (
        cell(found)
        == f"{found.r:+.2f} ({found.interval[0]:+.2f} to {found.interval[1]:+.2f}), n = 12"
    )


def test_what_cannot_vary_has_no_correlation():
    table = rows(0)
    assert within(table.assign(x=table["seed"]), "x", "y", ["seed"]) is None
    assert within(table.drop_duplicates("seed"), "x", "y", ["seed"]) is None
    assert within(table.assign(y=np.nan), "x", "y", ["seed"]) is None
    assert cell(None) == "-"
    few = within(table.iloc[:3], "x", "y", ["seed"])
    assert few.interval is None, "three points of one group leave no freedom"
