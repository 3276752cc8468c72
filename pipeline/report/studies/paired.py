"""Two methods compared over one setting: table and figure of their last phases."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pipeline.plan.declared import declared
from pipeline.report.figures import lines, style
from pipeline.report.figures.lines import Line
from pipeline.report.labels import label, looks
from pipeline.report.metric import capital
from pipeline.report.paper.studies import published, reference
from pipeline.report.studies.base import Study, groups, minus, over_places, over_seeds
from pipeline.report.tables.markdown import NONE, gain, number, table


@dataclass(frozen=True)
class Pair:
    """The comparison ``second`` minus ``first`` for each value of ``varied``.

    ``names`` are used instead of the methods' labels, ``paper`` is the paper's table of the same
    comparison, ``axis`` the label of ``varied`` in the figure, ``difference`` the header of the
    differences.
    """

    varied: str
    first: str
    second: str
    paper: str
    names: dict[str, str] = field(default_factory=dict)
    value_name: Callable[[Any], str] = str
    axis: str = ""
    difference: str = "second minus first"

    @property
    def methods(self) -> list[str]:
        """Both methods."""
        return [self.first, self.second]

    def name(self, method: str, m: int) -> str:
        """Return the name of a method for readers."""
        return self.names.get(method) or label(method, m)


def draw(study: Study, rows: pd.DataFrame, pair: Pair) -> Figure:
    """Draw the test score after the last phase over the values of the setting."""
    last = _last(rows, pair.varied).dropna(subset=["test_score"])
    if last.empty:
        return style.empty("No network was measured.")
    figure, (axes,) = style.new(3.2)
    places = list(dict.fromkeys(rows[pair.varied]))
    series = [
        Line(
            pair.name(method, study.params.m),
            look,
            over_places(last[last["method"] == method], pair.varied, "test_score"),
        )
        for method, look in looks(pair.methods).items()
    ]
    lines.draw(axes, series, places, [pair.value_name(place) for place in places], 100)
    style.below_hundred(axes, "y")
    axes.set_ylabel(f"test {study.metric.label} (%)")
    axes.set_xlabel(f"{pair.axis or pair.varied}; {style.error_bars(study.seeds)}")
    style.legend(figure, axes)
    return figure


def text(study: Study, rows: pd.DataFrame, pair: Pair) -> str:
    """Return both scores for each value, and the paper's where its experiment is the same."""
    names = [pair.name(method, study.params.m) for method in pair.methods]
    theirs = published(study.params, pair.paper)
    headers = [
        pair.varied,
        *(f"{name} (%)" for name in names),
        f"{pair.difference} (points)",
        *([] if theirs.empty else [f"paper: {name} (%)" for name in names]),
    ]
    scores = capital(study.metric.plural)
    note = f"{scores} are those of the last phase; differences are taken seed by seed.\n\n"
    return note + table(headers, _lines(study, _last(rows, pair.varied), pair, theirs))


def _last(rows: pd.DataFrame, varied: str) -> pd.DataFrame:
    """Return the rows of each method's last phase."""
    final = rows.groupby([varied, "method"])["phase"].transform("max")
    return rows[rows["phase"] == final]


def _lines(
    study: Study, rows: pd.DataFrame, pair: Pair, theirs: pd.DataFrame
) -> Iterator[list[str]]:
    printed = [declared(method).paper.get(pair.paper) for method in pair.methods]
    for values, at_value in groups(rows, pair.varied):
        value = values[pair.varied]
        first, second = (at_value[at_value["method"] == method] for method in pair.methods)
        differences = minus(second, first)
        their_rows = theirs[theirs[pair.varied] == value]
        numbers = [reference(their_rows[their_rows["method"] == name]) for name in printed]
        yield [
            pair.value_name(value),
            *(number(over_seeds(side, "test_score"), study.seeds) for side in (first, second)),
            gain(over_seeds(differences, "points"), study.seeds),
            *(
                []
                if theirs.empty
                else [f"{n.mean:.2f} ± {n.std:.2f}" if n else NONE for n in numbers]
            ),
        ]
