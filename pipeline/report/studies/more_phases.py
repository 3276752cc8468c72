"""The epochs of m candidates spent on one network: in longer phases, or in more of them."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.figures import lines, style
from pipeline.report.figures.lines import Line
from pipeline.report.markdown import NONE, gained, number, table
from pipeline.report.names import looks
from pipeline.report.paper_studies import published, reference
from pipeline.report.study import Study, groups, over_places, over_seeds, points_table

METHODS = {"imp_mx": "m times the epochs", "imp": "m times the phases"}
_PRINTED = {"imp_mx": "IMP_mx", "imp": "IMP with m phases"}


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row a network and phase."""
    return points_table(study)


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw the test accuracy after the last phase over m."""
    known = last(rows).dropna(subset=["test_accuracy"])
    if known.empty:
        return style.empty("No network was measured.")
    figure, (axes,) = style.new(3.2)
    places = sorted(set(known["m"]))
    found = [
        Line(
            f"IMP, {METHODS[method]}",
            look,
            over_places(known[known["method"] == method], "m", "test_accuracy"),
        )
        for method, look in looks(list(METHODS)).items()
    ]
    lines.draw(axes, found, places, [str(m) for m in places], 100)
    axes.set_ylabel("test accuracy (%)")
    axes.set_xlabel(f"m; {style.error_bars(study.seeds)}")
    style.legend(figure, axes)
    return figure


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return both accuracies for each m, beside the paper's where there are some."""
    p = study.params
    printed = not published(p, "more_phases").empty
    headers = [
        "m",
        *(f"{name} (%)" for name in METHODS.values()),
        "more phases minus more epochs (points)",
        *([f"paper: {name} (%)" for name in METHODS.values()] if printed else []),
    ]
    return (
        f"IMP to {100 * p.target_sparsity:g} % sparsity: {p.phases} phases of m times "
        f"{p.retrain.epochs} epochs, or m times {p.phases} phases of {p.retrain.epochs} epochs. "
        "Differences are taken seed by seed.\n\n"
        + table(headers, _lines(study, last(rows), printed=printed), 1)
    )


def last(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each method's last phase."""
    final = rows.groupby(["m", "method"])["phase"].transform("max")
    return rows[rows["phase"] == final]


def _lines(study: Study, rows: pd.DataFrame, *, printed: bool) -> Iterator[list[str]]:
    theirs = published(study.params, "more_phases")
    for values, own in groups(rows, "m"):
        sides = {method: own[own["method"] == method] for method in METHODS}
        both = sides["imp"].merge(sides["imp_mx"], on="seed", suffixes=("", "_mx"))
        both["points"] = both["test_accuracy"] - both["test_accuracy_mx"]
        found = [
            reference(theirs[(theirs["method"] == name) & (theirs["m"] == values["m"])])
            for name in _PRINTED.values()
        ]
        yield [
            str(values["m"]),
            *(number(over_seeds(side, "test_accuracy"), study.seeds) for side in sides.values()),
            gained(over_seeds(both, "points"), study.seeds),
            *(
                [NONE if f is None else f"{f.mean:.2f} ± {f.std:.2f}" for f in found]
                if printed
                else []
            ),
        ]
