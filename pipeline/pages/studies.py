"""Tables of studies, from their rows by seed in docs/data/: why.md, results.md, inference.md."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from pipeline.pages.seeds import NOTHING
from pipeline.report.studies import landscape, latency, quantise

DATA = Path("docs/data")


def of_rows(file: str, write: Callable[[pd.DataFrame, int], str], root: Path) -> str:
    """Return the table that ``write`` makes of the rows of ``file`` and their number of seeds."""
    if not (root / DATA / file).exists():
        return NOTHING
    rows = pd.read_csv(root / DATA / file)
    return write(rows, rows["seed"].nunique())


LANDSCAPE, QUANTISE = "landscape_digits.csv", "quantise_digits.csv"
TABLES: dict[str, Callable[[Path], str]] = {
    "landscape_networks": partial(of_rows, LANDSCAPE, landscape.networks),
    "landscape_pruning": partial(of_rows, LANDSCAPE, landscape.pruning),
    "landscape_correlations": partial(
        of_rows, LANDSCAPE, lambda rows, _: landscape.correlation_table(rows)
    ),
    "landscape_barriers": partial(of_rows, LANDSCAPE, landscape.barriers),
    "latency": partial(of_rows, "study_latency.csv", latency.networks),
    "quantise_scores": partial(of_rows, QUANTISE, quantise.scores),
    "quantise_differences": partial(of_rows, QUANTISE, lambda rows, _: quantise.differences(rows)),
}
