"""Study more_phases: the epochs of m candidates spent on longer phases, or on more phases."""

import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.studies import paired
from pipeline.report.studies.base import Study, points_table
from pipeline.report.studies.paired import Pair

PAIR = Pair(
    varied="m",
    first="imp_mx",
    second="imp",
    names={"imp_mx": "IMP, m times the epochs", "imp": "IMP, m times the phases"},
    paper="more_phases",
)


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row per network and phase."""
    return points_table(study)


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw the test score after the last phase over m."""
    return paired.draw(study, rows, PAIR)


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return both scores for each m, and the paper's where its experiment is the same."""
    p = study.params
    return (
        f"IMP to {100 * p.target_sparsity:g} % sparsity: {p.phases} phases of m times "
        f"{p.retrain.epochs} epochs, or m times {p.phases} phases of {p.retrain.epochs} epochs. "
        + paired.text(study, rows, PAIR)
    )
