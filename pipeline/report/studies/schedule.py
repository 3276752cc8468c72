"""Soup minus best candidate over the sparsity, by retraining schedule and by length."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.figures import lines, style
from pipeline.report.figures.lines import SERIES, Line
from pipeline.report.labels import epochs, short, sparsity
from pipeline.report.studies.base import (
    Study,
    groups,
    over_places,
    over_seeds,
    points_table,
    settings,
)
from pipeline.report.tables.markdown import gained, number, table


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row a soup."""
    return points_table(study)


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw the gains: one line a schedule, left, and one a number of epochs, right."""
    known = rows.dropna(subset=["gain"])
    if known.empty:
        return style.empty("No soup was measured.")
    figure, panels = style.new(3.9, 2)
    own = study.params.retrain
    places = sorted(set(known["sparsity"]))
    shown = (
        ("schedule", "epochs", own.epochs, f"by schedule, {epochs(own.epochs)}"),
        ("epochs", "schedule", own.schedule, f"by length, {own.schedule}"),
    )
    for axes, (varied, fixed, value, title) in zip(panels, shown, strict=True):
        found = [
            Line(
                str(values[varied]) if varied == "schedule" else epochs(values[varied]),
                look,
                over_places(line, "sparsity", "gain"),
            )
            for (values, line), look in zip(
                groups(known[known[fixed] == value].sort_values("epochs", kind="stable"), varied),
                SERIES * 9,
                strict=False,
            )
        ]
        lines.draw(axes, found, places, [short(place) for place in places], 100)
        lines.mark_zero(axes)
        axes.set_title(title)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2)
    panels[0].set_ylabel("uniform soup minus best candidate (points)")
    figure.supxlabel(f"sparsity (%), one shot; {style.error_bars(study.seeds)}", fontsize=9)
    return figure


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return every soup beside its best candidate."""
    headers = ["sparsity", "retraining", "soup (%)", "best candidate (%)", "difference (points)"]
    return (
        f"Uniform soups of {study.params.m} candidates, pruned in one shot. Best candidate: the "
        f"highest validation {study.metric.label}.\n\n" + table(headers, _lines(study, rows), 2)
    )


def _lines(study: Study, rows: pd.DataFrame) -> Iterator[list[str]]:
    for values, own in groups(rows, "sparsity", "schedule", "epochs"):
        yield [
            sparsity(values["sparsity"]),
            settings(own),
            number(over_seeds(own, "test_score"), study.seeds),
            number(over_seeds(own, "best_candidate"), study.seeds),
            gained(over_seeds(own, "gain"), study.seeds),
        ]
