"""Study sparsity: soup minus best candidate, distances, barriers, and where the soup breaks."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
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
BARRIERS = {"test_loss_barrier_mean": "mean of all pairs", "test_loss_barrier_max": "largest"}
ERRORS = ["test_error_barrier_mean", "test_error_barrier_max"]


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row per soup."""
    rows = points_table(study, list(DISTANCES))
    measured = [each.nodes.get("interpolate", {}) for each in study.points]
    for name in (*BARRIERS, *ERRORS):
        rows[name] = pd.Series([values.get(name) for values in measured], rows.index, float)
    return rows


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw the gain of each merge rule, the candidates' L2 distances, and their barriers."""
    rows = _best_retraining(rows)
    if rows.empty:
        return style.empty("No soup was measured.")
    figure, (top, middle, bottom) = style.new(6.4, 3, stacked=True, share_y=False)
    places = sorted(set(rows["sparsity"]))
    names = [short(place) for place in places]
    _gains(top, study, rows, places)
    one_rule = rows[rows["method"] == rows["method"].iloc[0]]  # all have the same candidates
    for axes, measures in ((middle, DISTANCES), (bottom, BARRIERS)):
        series = [
            Line(name, look, over_places(one_rule, "sparsity", measure))
            for (measure, name), look in zip(measures.items(), SERIES[2:], strict=False)
        ]
        lines.draw(axes, series, places, names, 1)
    lines.mark_zero(bottom)
    printed = l2_distances(study.params)
    if printed:
        middle.plot(
            [x for x, place in enumerate(places) if place in printed],
            [printed[place] for place in places if place in printed],
            color=style.GREY, linestyle="none", marker="x", label="paper, mean",
        )  # fmt: skip
    middle.set_ylabel("L2 distance of\ntwo candidates")
    bottom.set_ylabel("barrier of\nthe test loss")
    for axes in (top, middle, bottom):
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, columnspacing=1.0)
    figure.supxlabel(f"sparsity (%), one shot; {style.error_bars(study.seeds)}", fontsize=9)
    return figure


def _gains(axes: Axes, study: Study, rows: pd.DataFrame, places: list[float]) -> None:
    """Draw the gains, and a dotted line where the first soup breaks."""
    by_rule = {method: rows[rows["method"] == method] for method in dict.fromkeys(rows["method"])}
    gains = [
        Line(label(method, study.params.m), look, over_places(by_rule[method], "sparsity", "gain"))
        for method, look in looks(list(by_rule)).items()
    ]
    lines.draw(axes, gains, places, [short(place) for place in places], 100)
    lines.mark_zero(axes)
    axes.set_ylabel("soup minus best\ncandidate (points)")
    breaking = [place for part in by_rule.values() if (place := breaking_point(part)) is not None]
    if breaking:
        x = places.index(min(breaking))
        axes.axvline(x, color=style.GREY, linestyle=":", label="a soup breaks")


def breaking_point(rows: pd.DataFrame) -> float | None:
    """Return the first sparsity at which a soup is below its best candidate by more than spread.

        mean_s(d) < -std_s(d),    d = soup minus best candidate of seed s, test score

    None where there is no such sparsity, or one seed, which has no spread.
    """
    for place, spread in sorted(over_places(rows, "sparsity", "gain").items()):
        if spread is not None and spread.std is not None and spread.mean < -spread.std:
            return float(place)
    return None


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return the table of gains, distances and barriers, and the breaking points."""
    printed = l2_distances(study.params)
    score, selected = study.metric.label, _best_retraining(rows)
    headers = [
        *("sparsity", "", "retraining", "soup (%)", "best candidate (%)", "difference (points)"),
        *("mean L2 distance", "largest"),
        *(["paper's mean (Table 18)"] if printed else []),
        *("mean test loss barrier", "largest"),
    ]
    return (
        f"Every network was pruned in one shot. The best candidate has the highest validation "
        f"{score}. Of several retrainings each row has the one whose soup has the highest mean "
        f"validation {score}. The barrier between two candidates is the largest height of the loss "
        "on the straight line between their weights above the line between the ends.\n\n"
        + table(headers, _lines(study, selected, printed), 3)
        + _breaking(study, selected)
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
            *(number(over_seeds(part, name), study.seeds, scale=1) for name in DISTANCES),
            *([f"{printed[place]:.2f}" if place in printed else NONE] if printed else []),
            *(number(over_seeds(part, name), study.seeds, scale=1, digits=3) for name in BARRIERS),
        ]


def _breaking(study: Study, rows: pd.DataFrame) -> str:
    """Return the section on the breaking points: the sparsity, and what was measured there."""
    headers = [
        *("", "breaks at", "difference (points)", "mean L2 distance", "mean test loss barrier"),
        "mean test error barrier (points)",
    ]
    lines = []
    for values, part in groups(rows, "method"):
        place = breaking_point(part)
        there = part[part["sparsity"] == place]
        lines.append(
            [
                label(values["method"], study.params.m),
                f"not up to {sparsity(part['sparsity'].max())}"
                if place is None
                else sparsity(place),
                gain(over_seeds(there, "gain"), study.seeds),
                number(over_seeds(there, "l2_mean"), study.seeds, scale=1),
                number(over_seeds(there, "test_loss_barrier_mean"), study.seeds, scale=1, digits=3),
                number(over_seeds(there, "test_error_barrier_mean"), study.seeds),
            ]
        )
    rule = (
        "A soup breaks at the first sparsity at which its test score is below that of its best "
        "candidate by more than the standard deviation of the difference over the seeds."
    )
    if study.seeds == 1:
        return f"\n## Breaking point\n\n{rule} One seed has none: run two or more.\n"
    return f"\n## Breaking point\n\n{rule}\n\n{table(headers, lines)}"


def _best_retraining(rows: pd.DataFrame) -> pd.DataFrame:
    return best(rows, by=["sparsity", "method"], over=["schedule", "epochs"])
