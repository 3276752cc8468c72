"""Study length: SMS minus IMP retrained m times longer, over the epochs of one candidate."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.figures import lines, style
from pipeline.report.figures.lines import Line
from pipeline.report.labels import SERIES, label, sparsity
from pipeline.report.studies.base import Study, best, groups, over_places, over_seeds, points_table
from pipeline.report.tables.markdown import gain, number, table

LONGER = "imp_mx"
PLACE = ["sparsity", "epochs"]


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row per soup, and one per network retrained m times longer."""
    return points_table(study)


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw the difference over the epochs, a line per sparsity."""
    both = differences(rows)
    if both.empty:
        return style.empty("No soup was measured together with IMP retrained m times longer.")
    figure, (axes,) = style.new(3.6)
    places = sorted(set(both["epochs"]))
    series = [
        Line(
            f"{sparsity(values['sparsity'])} sparsity", look, over_places(part, "epochs", "points")
        )
        for (values, part), look in zip(groups(both, "sparsity"), SERIES * 9, strict=False)
    ]
    lines.draw(axes, series, places, [str(epochs) for epochs in places], 100)
    lines.mark_zero(axes)
    m = study.params.m
    axes.set_ylabel(f"SMS (m = {m}) minus {label(LONGER, m)} (points)")
    axes.set_xlabel(f"epochs of each candidate; {style.error_bars(study.seeds)}")
    style.legend(figure, axes)
    return figure


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return both scores and their difference."""
    m = study.params.m
    headers = ["sparsity", "SMS by", "epochs", "SMS (%)", f"{label(LONGER, m)} (%)", "points"]
    return (
        f"Pruned in one shot. SMS retrains {m} candidates for the given epochs, "
        f"{label(LONGER, m)} retrains one network for {m} times as many. Of several schedules and "
        f"merge rules each side takes the one with the highest mean validation "
        f"{study.metric.label}. Differences are taken seed by seed.\n\n"
        + table(headers, _lines(study, differences(rows)), 2)
    )


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the best of each side for every sparsity, epochs and seed, and SMS minus IMP_mx."""
    soups = best(rows[rows["method"] != LONGER], by=PLACE, over=["schedule", "method"])
    longer = best(rows[rows["method"] == LONGER], by=PLACE, over=["schedule"])
    both = soups.merge(longer, on=[*PLACE, "seed"], suffixes=("", "_longer"))
    both["points"] = both["test_score"] - both["test_score_longer"]
    return both


def _lines(study: Study, both: pd.DataFrame) -> Iterator[list[str]]:
    for values, part in groups(both, *PLACE):
        first = part.iloc[0]
        yield [
            sparsity(values["sparsity"]),
            f"{label(str(first['method']), study.params.m)}, {first['schedule']}",
            str(values["epochs"]),
            number(over_seeds(part, "test_score"), study.seeds),
            number(over_seeds(part, "test_score_longer"), study.seeds),
            gain(over_seeds(part, "points"), study.seeds),
        ]
