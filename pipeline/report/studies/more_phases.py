"""Study more_phases: the epochs of m candidates spent on longer phases, or on more phases."""

from functools import partial

import pandas as pd

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


tabulate = points_table  # one row per network and phase
draw = partial(paired.draw, pair=PAIR)


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return both scores for each m, and the paper's where its experiment is the same."""
    p = study.params
    return (
        f"IMP to {100 * p.target_sparsity:g} % sparsity: {p.phases} phases of m times "
        f"{p.retrain.epochs} epochs, or m times {p.phases} phases of {p.retrain.epochs} epochs. "
        + paired.text(study, rows, PAIR)
    )
