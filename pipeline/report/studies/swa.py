"""IMP and IMP+SWA by retraining schedule, beside the paper's Table 17."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.figures import lines, style
from pipeline.report.figures.lines import Line
from pipeline.report.markdown import NONE, gained, number, table
from pipeline.report.names import label, looks
from pipeline.report.paper_studies import published, reference
from pipeline.report.study import Study, groups, over_places, over_seeds, points_table

METHODS = {"imp": "IMP", "imp_swa": "IMP+SWA"}  # as Table 17 calls them


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row a network and phase."""
    return points_table(study)


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw the test accuracy of both after the last phase, by schedule."""
    known = _last(rows).dropna(subset=["test_accuracy"])
    if known.empty:
        return style.empty("No network was measured.")
    figure, (axes,) = style.new(3.2)
    schedules = list(dict.fromkeys(known["schedule"]))
    placed = known.assign(place=known["schedule"].map(schedules.index))
    found = [
        Line(
            label(method, study.params.m),
            look,
            over_places(placed[placed["method"] == method], "place", "test_accuracy"),
        )
        for method, look in looks(list(METHODS)).items()
    ]
    lines.draw(axes, found, range(len(schedules)), schedules, 100)
    axes.set_ylabel("test accuracy (%)")
    axes.set_xlabel(f"retraining schedule; {style.error_bars(study.seeds)}")
    style.legend(figure, axes)
    return figure


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return both accuracies for each schedule, beside the paper's where there are some."""
    p = study.params
    theirs = published(p, "swa")
    headers = [
        *("schedule", "IMP (%)", "IMP+SWA (%)", "SWA minus none (points)"),
        *([] if theirs.empty else [f"paper: {name} (%)" for name in METHODS.values()]),
    ]
    return (
        f"IMP to {100 * p.target_sparsity:g} % sparsity in {p.phases} phases of "
        f"{p.retrain.epochs} epochs; with SWA each phase ends at the mean of its epoch ends. "
        "Differences are taken seed by seed.\n\n"
        + table(headers, _lines(study, _last(rows), theirs), 1)
    )


def _last(rows: pd.DataFrame) -> pd.DataFrame:
    final = rows.groupby("method")["phase"].transform("max")
    return rows[rows["phase"] == final]


def _lines(study: Study, rows: pd.DataFrame, theirs: pd.DataFrame) -> Iterator[list[str]]:
    for values, own in groups(rows, "schedule"):
        sides = {method: own[own["method"] == method] for method in METHODS}
        both = sides["imp_swa"].merge(sides["imp"], on="seed", suffixes=("", "_imp"))
        both["points"] = both["test_accuracy"] - both["test_accuracy_imp"]
        mine = theirs[theirs["schedule"] == values["schedule"]]
        printed = [reference(mine[mine["method"] == name]) for name in METHODS.values()]
        yield [
            values["schedule"],
            *(number(over_seeds(side, "test_accuracy"), study.seeds) for side in sides.values()),
            gained(over_seeds(both, "points"), study.seeds),
            *(
                []
                if theirs.empty
                else [NONE if f is None else f"{f.mean:.2f} ± {f.std:.2f}" for f in printed]
            ),
        ]
