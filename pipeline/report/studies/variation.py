"""Study variation: soups by what varies between their candidates, and one copy of equal cost."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.figures import lines, style
from pipeline.report.figures.lines import Line
from pipeline.report.figures.pairs import KINDS
from pipeline.report.labels import SERIES, epochs, sparsity
from pipeline.report.studies.base import (
    Study,
    groups,
    minus,
    over_places,
    over_seeds,
    points_table,
)
from pipeline.report.tables.markdown import NONE, gain, number, table

LONGER = "none"  # differs: the one copy that is retrained m times as long
NAMES = KINDS | {"all": "all four", LONGER: "one copy, m times as long"}


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row per soup, and one per copy retrained m times as long."""
    return points_table(study, ["l2_mean"])


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw the test score, left, and the soup minus its best candidate, right, over m."""
    known = rows.dropna(subset=["test_score"])
    if known.empty:
        return style.empty("No soup was measured.")
    figure, panels = style.new(3.6, 2, share_y=False)
    places = sorted(set(known["m"]))
    for axes, measure in zip(panels, ("test_score", "gain"), strict=True):
        series = [
            Line(NAMES[kind], look, over_places(known[known["vary"] == kind], "m", measure))
            for kind, look in zip(NAMES, SERIES, strict=False)
            if measure == "test_score" or kind != LONGER
        ]
        lines.draw(axes, series, places, [str(m) for m in places], 100)
    left, right = panels
    style.below_hundred(left, "y")
    lines.mark_zero(right)
    left.set_ylabel(f"test {study.metric.label} (%)")
    right.set_ylabel("soup minus best candidate (points)")
    note = f"m, each of {epochs(study.params.retrain.epochs)} on average"
    figure.supxlabel(f"{note}; {style.error_bars(study.seeds)}", fontsize=9)
    style.legend(figure, left)
    return figure


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return every soup, compared with that of equal size whose candidates differ by seed."""
    headers = [
        *("m", "varied", "test (%)", "best candidate (%)", "mean candidate (%)"),
        *("mean L2 distance", "minus seed only (points)", "minus one copy (points)"),
    ]
    at = ", ".join(sparsity(value) for value in dict.fromkeys(rows["sparsity"]))
    absent = [
        f"{NAMES[kind]} at m = {m}"
        for m in dict.fromkeys(rows["m"])
        for kind in NAMES
        if rows[(rows["m"] == m) & (rows["vary"] == kind)].empty
    ]
    left_out = (
        "\nLeft out, as not in the grid, without enough values in the recipe, or of unequal cost: "
        f"{', '.join(absent)}.\n"
    )
    return (
        f"Uniform soups of m candidates, pruned in one shot to {at} and retrained by LLR: "
        f"{epochs(study.params.retrain.epochs)} each on average, or m times as many for the one "
        "copy. The best candidate has the highest validation "
        f"{study.metric.label}. Differences are taken seed by seed.\n\n"
        + table(headers, _lines(study, rows), 2)
        + (left_out if absent else "")
    )


def _lines(study: Study, rows: pd.DataFrame) -> Iterator[list[str]]:
    for values, at_m in groups(rows, "m"):
        kinds = {kind: at_m[at_m["vary"] == kind] for kind in NAMES}
        for kind, part in kinds.items():
            if part.empty:
                continue
            others = [other if other != kind else "" for other in ("seed", LONGER)]
            measures = ("test_score", "best_candidate", "mean_candidate")
            yield [
                str(values["m"]),
                NAMES[kind],
                *(number(over_seeds(part, measure), study.seeds) for measure in measures),
                number(over_seeds(part, "l2_mean"), study.seeds, scale=1),
                *(
                    gain(over_seeds(minus(part, kinds[other]), "points"), study.seeds)
                    if other
                    else NONE
                    for other in others
                ),
            ]
