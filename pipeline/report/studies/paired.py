"""Two methods side by side over one thing that varies: their last phases, and the difference."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.figures import lines, style
from pipeline.report.figures.lines import Line
from pipeline.report.labels import looks
from pipeline.report.metric import capital
from pipeline.report.paper.studies import published, reference
from pipeline.report.studies.base import Study, groups, over_places, over_seeds
from pipeline.report.tables.markdown import NONE, gained, number, table


@dataclass(frozen=True)
class Sides:
    """What is compared: the ``second`` of two methods minus the first, for each ``varied``.

    ``methods`` names both, and ``printed`` says how the paper's ``table`` calls them. ``axis``
    names what varies in the figure, and ``difference`` the column of differences.
    """

    varied: str
    methods: dict[str, str]
    table: str
    printed: dict[str, str]
    name: Callable[[Any], str] = str
    axis: str = ""
    difference: str = "second minus first"


def last(rows: pd.DataFrame, varied: str) -> pd.DataFrame:
    """Return the rows of each method's last phase."""
    final = rows.groupby([varied, "method"])["phase"].transform("max")
    return rows[rows["phase"] == final]


def draw(study: Study, rows: pd.DataFrame, sides: Sides) -> Figure:
    """Draw the test score after the last phase over what varies."""
    known = last(rows, sides.varied).dropna(subset=["test_score"])
    if known.empty:
        return style.empty("No network was measured.")
    figure, (axes,) = style.new(3.2)
    places = list(dict.fromkeys(rows[sides.varied]))
    found = [
        Line(
            sides.methods[method],
            look,
            over_places(known[known["method"] == method], sides.varied, "test_score"),
        )
        for method, look in looks(list(sides.methods)).items()
    ]
    lines.draw(axes, found, places, [sides.name(place) for place in places], 100)
    style.below_hundred(axes, "y")
    axes.set_ylabel(f"test {study.metric.label} (%)")
    axes.set_xlabel(f"{sides.axis or sides.varied}; {style.error_bars(study.seeds)}")
    style.legend(figure, axes)
    return figure


def text(study: Study, rows: pd.DataFrame, sides: Sides) -> str:
    """Return both scores for each place, and the paper's where there are some."""
    names = list(sides.methods.values())
    theirs = published(study.params, sides.table)
    headers = [
        sides.varied,
        *(f"{name} (%)" for name in names),
        f"{sides.difference} (points)",
        *([] if theirs.empty else [f"paper: {name} (%)" for name in names]),
    ]
    scores = capital(study.metric.plural)
    note = f"{scores} are those of the last phase; differences are taken seed by seed.\n\n"
    return note + table(headers, _lines(study, last(rows, sides.varied), sides, theirs))


def _lines(
    study: Study, rows: pd.DataFrame, sides: Sides, theirs: pd.DataFrame
) -> Iterator[list[str]]:
    for values, own in groups(rows, sides.varied):
        place = values[sides.varied]
        both = [own[own["method"] == method] for method in sides.methods]
        pairs = both[1].merge(both[0], on="seed", suffixes=("", "_first"))
        pairs["points"] = pairs["test_score"] - pairs["test_score_first"]
        here = theirs[theirs[sides.varied] == place]
        found = [reference(here[here["method"] == name]) for name in sides.printed.values()]
        yield [
            sides.name(place),
            *(number(over_seeds(side, "test_score"), study.seeds) for side in both),
            gained(over_seeds(pairs, "points"), study.seeds),
            *(
                []
                if theirs.empty
                else [f"{f.mean:.2f} ± {f.std:.2f}" if f else NONE for f in found]
            ),
        ]
