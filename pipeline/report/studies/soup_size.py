"""Study soup_size: scores by the number of candidates, and of one copy retrained for as long."""

import math
from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.figures import lines, style
from pipeline.report.figures.lines import Line
from pipeline.report.labels import SERIES, epochs, looks, sparsity
from pipeline.report.statistics import difference
from pipeline.report.studies.base import Study, groups, minus, over_places, over_seeds, points_table
from pipeline.report.tables.markdown import NONE, gain, number, table

NAMES = {"sms_uniform": "soup of m candidates", "imp_mx": "one copy, m times as long"}


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row per soup, and one per copy retrained m times as long."""
    return points_table(study)


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw the test score over the cost, a panel per sparsity, with where more stops helping."""
    known = rows.dropna(subset=["test_score"])
    if known.empty:
        return style.empty("No network was measured.")
    parts = {values["sparsity"]: part for values, part in groups(known, "sparsity")}
    columns = min(2, len(parts))
    height = 0.9 + 2.7 * math.ceil(len(parts) / columns)
    figure, panels = style.new(height, len(parts), columns=columns, share_y=False)
    for axes, (place, part) in zip(panels, parts.items(), strict=True):
        _panel(axes, part)
        axes.set_title(f"{sparsity(place)} sparsity")
        style.below_hundred(axes, "y")
    figure.supylabel(f"test {study.metric.label} (%)", fontsize=9)
    each = epochs(study.params.retrain.epochs)
    note = f"m, each of {each} of retraining; {style.error_bars(study.seeds)}"
    figure.supxlabel(note, fontsize=9)
    style.legend(figure, panels[0])
    return figure


def _panel(axes: Axes, rows: pd.DataFrame) -> None:
    soups, longer = (rows[rows["method"] == method] for method in NAMES)
    looked = looks(list(NAMES))
    places = list(range(1, max(rows["m"]) + 1))
    shown = {1, *longer["m"], places[-1]}
    names = [str(place) if place in shown else "" for place in places]
    series = [
        Line(NAMES["sms_uniform"], looked["sms_uniform"], over_places(soups, "m", "test_score")),
        Line("its best candidate", SERIES[3], over_places(soups, "m", "best_candidate")),
        Line(NAMES["imp_mx"], looked["imp_mx"], over_places(longer, "m", "test_score")),
    ]
    lines.draw(axes, series, places, names, 100)
    stop = enough(soups)
    if stop is not None:
        name = "more candidates stop helping"
        axes.axvline(places.index(stop), color=style.GREY, linestyle=":", label=name)


def enough(rows: pd.DataFrame) -> int | None:
    """Return the first m after which no larger m' is better by more than its standard error.

        mean_s(v_m' - v_m) <= std_s(v_m' - v_m) / sqrt(n)    for all m' > m

    v: validation score of seed s, of n. Of one seed the standard error is taken as 0. None without
    rows.

    Source: after the one-standard-error rule of Breiman et al. 1984, Classification and Regression
    Trees; the differences are paired by seed.
    """
    scores = {
        int(values["m"]): dict(zip(part["seed"], part["val_score"].astype(float), strict=True))
        for values, part in groups(rows, "m")
    }
    for m in sorted(scores):
        better = (difference(scores[other], scores[m]) for other in scores if other > m)
        if not any(
            each and each.mean > (each.std or 0.0) / math.sqrt(each.n) + 1e-12 for each in better
        ):
            return m
    return None


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return the scores at every cost, and where more stops helping."""
    score, each = study.metric.label, epochs(study.params.retrain.epochs)
    headers = ["sparsity", "m", "soup (%)", "best candidate (%)", "longer (%)", "soup minus longer"]
    stops = [
        *("sparsity", "", "from m =", "validation (%)", "test (%)", "test at m = 1 (%)"),
        *("largest m", "test there (%)", "largest minus it (points)"),
    ]
    return (
        f"Pruned in one shot. The soup is the mean of the first m candidates of {each} each, of "
        f"which the best has the highest validation {score}; the longer copy has m times {each}. "
        "Differences are in points, seed by seed.\n\n"
        + table(headers, _lines(study, rows), 2)
        + "\n## Where more stops helping\n\nThe first m after which no larger m has a mean "
        f"validation {score} that is higher by more than the standard error of the difference over "
        "the seeds. The test score takes no part in the choice.\n\n"
        + table(stops, _stops(study, rows), 2)
    )


def _lines(study: Study, rows: pd.DataFrame) -> Iterator[list[str]]:
    for values, part in groups(rows, "sparsity", "m"):
        soups, longer = (part[part["method"] == method] for method in NAMES)
        yield [
            sparsity(values["sparsity"]),
            str(values["m"]),
            number(over_seeds(soups, "test_score"), study.seeds),
            number(over_seeds(soups, "best_candidate"), study.seeds),
            number(over_seeds(longer, "test_score"), study.seeds),
            gain(over_seeds(minus(soups, longer), "points"), study.seeds),
        ]


def _stops(study: Study, rows: pd.DataFrame) -> Iterator[list[str]]:
    for values, part in groups(rows.dropna(subset=["val_score"]), "sparsity", "method"):
        stop, most = enough(part), max(part["m"])
        first, there, last = (part[part["m"] == m] for m in (min(part["m"]), stop, most))
        yield [
            sparsity(values["sparsity"]),
            NAMES[values["method"]],
            NONE if stop is None else str(stop),
            number(over_seeds(there, "val_score"), study.seeds),
            number(over_seeds(there, "test_score"), study.seeds),
            number(over_seeds(first, "test_score"), study.seeds),
            str(most),
            number(over_seeds(last, "test_score"), study.seeds),
            gain(over_seeds(minus(last, there), "points"), study.seeds),
        ]
