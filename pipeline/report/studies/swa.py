"""IMP and IMP+SWA by retraining schedule, beside the paper's Table 17."""

import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.studies import paired
from pipeline.report.studies.base import Study, points_table
from pipeline.report.studies.paired import Sides

SIDES = Sides(
    varied="schedule",
    methods={"imp": "IMP", "imp_swa": "IMP+SWA"},
    table="swa",
    printed={"imp": "IMP", "imp_swa": "IMP+SWA"},
    axis="retraining schedule",
    difference="SWA minus none",
)


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row a network and phase."""
    return points_table(study)


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw the test score of both after the last phase, by schedule."""
    return paired.draw(study, rows, SIDES)


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return both scores for each schedule, beside the paper's where there are some."""
    p = study.params
    return (
        f"IMP to {100 * p.target_sparsity:g} % sparsity in {p.phases} phases of "
        f"{p.retrain.epochs} epochs; with SWA each phase ends at the mean of its epoch ends. "
        + paired.text(study, rows, SIDES)
    )
