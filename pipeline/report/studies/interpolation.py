"""Study interpolation: loss and error on the straight lines between networks, and the barriers."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.figures import lines, style
from pipeline.report.figures.lines import Line
from pipeline.report.labels import SERIES, short, sparsity
from pipeline.report.statistics import Spread
from pipeline.report.studies.base import KEY, Study, groups, over_places, over_seeds
from pipeline.report.tables.markdown import number, table

# Mean and maximum over the pairs of the largest height above the line between the ends: metrics of
# the stage interpolate.
BARRIERS = [
    f"{measure}_barrier_{over}"
    for measure in ("train_loss", "val_loss", "test_loss", "test_error")
    for over in ("mean", "max")
]
NAMES = {"sms_uniform": "SMS candidates", "imp_reprune": "IMP runs"}


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row per set of networks: the barriers over its pairs."""
    records = [
        measured.key | {name: measured.nodes["interpolate"].get(name) for name in BARRIERS}
        for measured in study.points
    ]
    return pd.DataFrame(records, columns=["sparsity", *KEY, *BARRIERS])


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw the barriers over the phases, left, and the error on the last phase's lines, right."""
    known = rows.dropna(subset=["test_error_barrier_mean"])
    if known.empty:
        return style.empty("No barrier was measured.")
    figure, (left, right) = style.new(3.4, 2, share_y=False)
    places = sorted(set(known["sparsity"]))
    series = [
        Line(
            NAMES[values["method"]], look, over_places(part, "sparsity", "test_error_barrier_mean")
        )
        for (values, part), look in zip(groups(known, "method"), SERIES, strict=False)
    ]
    lines.draw(left, series, places, [short(place) for place in places], 100)
    lines.mark_zero(left)
    left.set_xlabel("sparsity (%)")
    left.set_ylabel("barrier of the test error (points)")
    _curves(right, study, list(dict.fromkeys(known["method"])))
    figure.supxlabel(f"{style.error_bars(study.seeds)}, each over all pairs", fontsize=9)
    style.legend(figure, left)
    return figure


def _curves(axes: Axes, study: Study, methods: list[str]) -> None:
    """Draw the test error on the lines between the last phase's networks, the mean of all pairs."""
    last = max(measured.point.phase for measured in study.points)
    for method, look in zip(methods, SERIES, strict=False):
        nodes = [
            measured.nodes["interpolate"]
            for measured in study.points
            if (measured.point.method, measured.point.phase) == (method, last)
        ]
        curves = [pair["curves"]["test_error"] for node in nodes for pair in node.get("pairs", [])]
        if curves:
            shares = next(node["shares"] for node in nodes if node)
            means = [100 * sum(values) / len(values) for values in zip(*curves, strict=True)]
            axes.plot(shares, means, look.line, color=look.colour, marker=look.marker)
    axes.set_xlabel(f"share of the second network, phase {last}")
    axes.set_ylabel("test error (%)")
    axes.grid(axis="y")


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return the table of barriers."""
    headers = [
        *("sparsity", "networks", "train loss", "largest", "validation loss", "largest"),
        *("test loss", "largest", "test error (points)", "largest"),
    ]
    return (
        "The barrier between two networks is the largest height of loss or error on the straight "
        "line between their weights above the line between the ends; BatchNorm statistics are "
        "re-estimated at each point. The table has the mean over all pairs and the largest. SMS "
        "candidates are retrained from one pruned parent; IMP runs share only the dense network "
        "from phase 2 on.\n\n" + table(headers, _lines(study, rows), 2)
    )


def _lines(study: Study, rows: pd.DataFrame) -> Iterator[list[str]]:
    for values, part in groups(rows, "sparsity", "method"):
        yield [
            sparsity(values["sparsity"]),
            NAMES[values["method"]],
            *(_cell(over_seeds(part, name), name, study.seeds) for name in BARRIERS),
        ]


def _cell(barrier: Spread | None, name: str, seeds: int) -> str:
    error = "error" in name
    return number(barrier, seeds, scale=100 if error else 1, digits=2 if error else 3)
