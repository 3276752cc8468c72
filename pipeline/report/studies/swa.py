"""Study swa: IMP and IMP+SWA by retraining schedule, compared with the paper's Table 17."""

from functools import partial

import pandas as pd

from pipeline.report.studies import paired
from pipeline.report.studies.base import Study, points_table
from pipeline.report.studies.paired import Pair

PAIR = Pair(
    varied="schedule",
    first="imp",
    second="imp_swa",
    paper="swa",
    axis="retraining schedule",
    difference="SWA minus none",
)


tabulate = points_table  # one row per network and phase
draw = partial(paired.draw, pair=PAIR)


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return both scores for each schedule, and the paper's where its experiment is the same."""
    p = study.params
    return (
        f"IMP to {100 * p.target_sparsity:g} % sparsity in {p.phases} phases of "
        f"{p.retrain.epochs} epochs. With SWA each phase ends with the mean of the networks at the "
        "ends of its epochs. " + paired.text(study, rows, PAIR)
    )
