"""Study sparsity: soup minus best candidate, and the distance of the candidates, by sparsity."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.figures import lines, style
from pipeline.report.figures.lines import Line
from pipeline.report.labels import SERIES, label, looks, short, sparsity
from pipeline.report.paper.studies import l2_distances
from pipeline.report.studies.base import (
    Study,
    best,
    groups,
    over_places,
    over_seeds,
    points_table,
    settings,
)
from pipeline.report.tables.markdown import NONE, gain, number, table

DISTANCES = {"l2_mean": "mean of all pairs", "l2_max": "largest"}


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row per soup."""
    return points_table(study, list(DISTANCES))


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw the gain of each merge rule, left, and the candidates' L2 distances, right."""
    rows = _best_retraining(rows)
    if rows.empty:
        return style.empty("No soup was measured.")
    figure, (left, right) = style.new(3.4, 2, share_y=False)
    places = sorted(set(rows["sparsity"]))
    names = [short(place) for place in places]
    by_rule = {method: rows[rows["method"] == method] for method in dict.fromkeys(rows["method"])}
    gains = [
        Line(label(method, study.params.m), look, over_places(by_rule[method], "sparsity", "gain"))
        for method, look in looks(list(by_rule)).items()
    ]
    one_rule = next(iter(by_rule.values()))  # all rules have the same candidates
    distances = [
        Line(name, look, over_places(one_rule, "sparsity", measure))
        for (measure, name), look in zip(DISTANCES.items(), SERIES[2:], strict=False)
    ]
    lines.draw(left, gains, places, names, 100)
    lines.draw(right, distances, places, names, 1)
    lines.mark_zero(left)
    printed = l2_distances(study.params)
    if printed:
        right.plot(
            [x for x, place in enumerate(places) if place in printed],
            [printed[place] for place in places if place in printed],
            color=style.GREY, linestyle="none", marker="x", label="paper, mean",
        )  # fmt: skip
    left.set_ylabel("soup minus best candidate (points)")
    right.set_ylabel("L2 distance of two candidates")
    for axes in (left, right):
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, columnspacing=1.0)
    figure.supxlabel(f"sparsity (%), one shot; {style.error_bars(study.seeds)}", fontsize=9)
    return figure


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return the table of gains and distances."""
    printed = l2_distances(study.params)
    score = study.metric.label
    headers = [
        *("sparsity", "", "retraining", "soup (%)", "best candidate (%)", "difference (points)"),
        *("mean L2 distance", "largest"),
        *(["paper's mean (Table 18)"] if printed else []),
    ]
    return (
        f"Every network was pruned in one shot. The best candidate has the highest validation "
        f"{score}. Of several retrainings each row has the one whose soup has the highest mean "
        f"validation {score}.\n\n"
        + table(headers, _lines(study, _best_retraining(rows), printed), 3)
    )


def _lines(study: Study, rows: pd.DataFrame, printed: dict[float, float]) -> Iterator[list[str]]:
    for values, part in groups(rows, "sparsity", "method"):
        place = values["sparsity"]
        yield [
            sparsity(place),
            label(values["method"], study.params.m),
            settings(part),
            number(over_seeds(part, "test_score"), study.seeds),
            number(over_seeds(part, "best_candidate"), study.seeds),
            gain(over_seeds(part, "gain"), study.seeds),
            *(number(over_seeds(part, distance), study.seeds, scale=1) for distance in DISTANCES),
            *([f"{printed[place]:.2f}" if place in printed else NONE] if printed else []),
        ]


def _best_retraining(rows: pd.DataFrame) -> pd.DataFrame:
    return best(rows, by=["sparsity", "method"], over=["schedule", "epochs"])
