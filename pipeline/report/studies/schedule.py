"""Study schedule: soup minus best candidate, by sparsity, retraining schedule and length."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.figures import lines, style
from pipeline.report.figures.lines import Line
from pipeline.report.labels import SERIES, epochs, short, sparsity
from pipeline.report.studies.base import (
    Study,
    groups,
    over_places,
    over_seeds,
    points_table,
    settings,
)
from pipeline.report.tables.markdown import gain, number, table


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row per soup."""
    return points_table(study)


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw the gains: a line per schedule, left, and one per number of epochs, right."""
    known = rows.dropna(subset=["gain"])
    if known.empty:
        return style.empty("No soup was measured.")
    figure, panels = style.new(3.9, 2)
    retrain = study.params.retrain
    places = sorted(set(known["sparsity"]))
    shown = (
        ("schedule", "epochs", retrain.epochs, f"by schedule, {epochs(retrain.epochs)}"),
        ("epochs", "schedule", retrain.schedule, f"by length, {retrain.schedule}"),
    )
    for axes, (varied, fixed, value, title) in zip(panels, shown, strict=True):
        rows_shown = known[known[fixed] == value].sort_values("epochs", kind="stable")
        series = [
            Line(
                str(values[varied]) if varied == "schedule" else epochs(values[varied]),
                look,
                over_places(part, "sparsity", "gain"),
            )
            for (values, part), look in zip(groups(rows_shown, varied), SERIES * 9, strict=False)
        ]
        lines.draw(axes, series, places, [short(place) for place in places], 100)
        lines.mark_zero(axes)
        axes.set_title(title)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2)
    panels[0].set_ylabel("uniform soup minus best candidate (points)")
    figure.supxlabel(f"sparsity (%), one shot; {style.error_bars(study.seeds)}", fontsize=9)
    return figure


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return every soup and its best candidate."""
    headers = ["sparsity", "retraining", "soup (%)", "best candidate (%)", "difference (points)"]
    return (
        f"Uniform soups of {study.params.m} candidates, pruned in one shot. The best candidate has "
        f"the highest validation {study.metric.label}.\n\n" + table(headers, _lines(study, rows), 2)
    )


def _lines(study: Study, rows: pd.DataFrame) -> Iterator[list[str]]:
    for values, part in groups(rows, "sparsity", "schedule", "epochs"):
        yield [
            sparsity(values["sparsity"]),
            settings(part),
            number(over_seeds(part, "test_score"), study.seeds),
            number(over_seeds(part, "best_candidate"), study.seeds),
            gain(over_seeds(part, "gain"), study.seeds),
        ]
