"""The epochs of m candidates spent on one network: in longer phases, or in more of them."""

import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.studies import paired
from pipeline.report.studies.base import Study, points_table
from pipeline.report.studies.paired import Sides

SIDES = Sides(
    varied="m",
    methods={"imp_mx": "IMP, m times the epochs", "imp": "IMP, m times the phases"},
    table="more_phases",
    printed={"imp_mx": "IMP_mx", "imp": "IMP with m phases"},
)


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row a network and phase."""
    return points_table(study)


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw the test score after the last phase over m."""
    return paired.draw(study, rows, SIDES)


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return both scores for each m, beside the paper's where there are some."""
    p = study.params
    return (
        f"IMP to {100 * p.target_sparsity:g} % sparsity: {p.phases} phases of m times "
        f"{p.retrain.epochs} epochs, or m times {p.phases} phases of {p.retrain.epochs} epochs. "
        + paired.text(study, rows, SIDES)
    )
