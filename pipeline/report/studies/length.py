"""SMS minus IMP retrained m times as long, over the epochs of one candidate."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.figures import lines, style
from pipeline.report.figures.lines import SERIES, Line
from pipeline.report.labels import label, sparsity
from pipeline.report.studies.base import Study, best, groups, over_places, over_seeds, points_table
from pipeline.report.tables.markdown import gained, number, table

PLACE = ["sparsity", "epochs"]


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row a soup and one a network retrained m times as long."""
    return points_table(study)


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw the difference over the epochs, one line a sparsity."""
    both = differences(rows)
    if both.empty:
        return style.empty("No soup was measured beside IMP retrained m times as long.")
    figure, (axes,) = style.new(3.6)
    places = sorted(set(both["epochs"]))
    found = [
        Line(f"{sparsity(values['sparsity'])} sparsity", look, over_places(own, "epochs", "points"))
        for (values, own), look in zip(groups(both, "sparsity"), SERIES * 9, strict=False)
    ]
    lines.draw(axes, found, places, [str(epochs) for epochs in places], 100)
    lines.mark_zero(axes)
    m = study.params.m
    axes.set_ylabel(f"SMS (m = {m}) minus {label('imp_mx', m)} (points)")
    axes.set_xlabel(f"epochs of each candidate; {style.error_bars(study.seeds)}")
    style.legend(figure, axes)
    return figure


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return both scores and their difference."""
    m = study.params.m
    headers = ["sparsity", "SMS by", "epochs", "SMS (%)", f"{label('imp_mx', m)} (%)", "points"]
    return (
        f"One shot. SMS retrains {m} candidates for the epochs in the table, "
        f"{label('imp_mx', m)} one network for {m} times as many. Of several schedules and merge "
        f"rules each side has the one with the highest mean validation {study.metric.label}. "
        "Differences are taken seed by seed.\n\n"
        + table(headers, _lines(study, differences(rows)), 2)
    )


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the best of each side for every sparsity, epochs and seed, and SMS minus IMP_mx."""
    soups = best(rows[rows["method"] != "imp_mx"], by=PLACE, over=["schedule", "method"])
    longer = best(rows[rows["method"] == "imp_mx"], by=PLACE, over=["schedule"])
    both = soups.merge(longer, on=[*PLACE, "seed"], suffixes=("", "_imp_mx"))
    both["points"] = both["test_score"] - both["test_score_imp_mx"]
    return both


def _lines(study: Study, both: pd.DataFrame) -> Iterator[list[str]]:
    for values, own in groups(both, *PLACE):
        first = own.iloc[0]
        yield [
            sparsity(values["sparsity"]),
            f"{label(str(first['method']), study.params.m)}, {first['schedule']}",
            str(values["epochs"]),
            number(over_seeds(own, "test_score"), study.seeds),
            number(over_seeds(own, "test_score_imp_mx"), study.seeds),
            gained(over_seeds(own, "points"), study.seeds),
        ]
