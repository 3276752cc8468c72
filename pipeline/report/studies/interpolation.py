"""The loss and error on the straight ways between networks, and the barriers they meet."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.figures import lines, style
from pipeline.report.figures.lines import SERIES, Line
from pipeline.report.labels import short, sparsity
from pipeline.report.statistics import Spread
from pipeline.report.studies.base import KEY, Study, groups, over_places, over_seeds
from pipeline.report.tables.markdown import number, table

# The pairs' mean and largest height above the line between the ends, as the stage names them.
BARRIERS = [
    f"{measure}_barrier_{over}"
    for measure in ("train_loss", "val_loss", "test_loss", "test_error")
    for over in ("mean", "max")
]
NAMES = {"sms_uniform": "SMS candidates", "imp_reprune": "IMP runs"}


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row a set of networks: the barriers over its pairs."""
    records = [
        {
            **measured.point.values,
            "method": measured.point.method,
            "phase": measured.point.phase,
            "seed": measured.point.seed,
            **{name: measured.nodes["interpolate"].get(name) for name in BARRIERS},
        }
        for measured in study.points
    ]
    return pd.DataFrame(records, columns=["sparsity", *KEY, *BARRIERS])


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw the barriers over the phases, left, and the error along the last ways, right."""
    known = rows.dropna(subset=["test_error_barrier_mean"])
    if known.empty:
        return style.empty("No way was measured.")
    figure, (left, right) = style.new(3.2, 2, share_y=False)
    places = sorted(set(known["sparsity"]))
    found = [
        Line(NAMES[values["method"]], look, over_places(own, "sparsity", "test_error_barrier_mean"))
        for (values, own), look in zip(groups(known, "method"), SERIES, strict=False)
    ]
    lines.draw(left, found, places, [short(place) for place in places], 100)
    lines.mark_zero(left)
    left.set_xlabel("sparsity (%)")
    left.set_ylabel("barrier of the test error (points)")
    left.legend(loc="best")
    _ways(right, study, list(dict.fromkeys(known["method"])))
    figure.supxlabel(f"{style.error_bars(study.seeds)}, each over all pairs", fontsize=9)
    return figure


def _ways(axes: Axes, study: Study, methods: list[str]) -> None:
    """Draw the test error along the ways of the last phase, the mean of all pairs."""
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
            axes.plot(
                shares, means, look.line, color=look.colour, marker=look.marker, label=NAMES[method]
            )
    axes.set_xlabel(f"way from network to network, phase {last}")
    axes.set_ylabel("test error (%)")
    axes.grid(axis="y")


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return the table of barriers."""
    headers = [
        *("sparsity", "networks", "train loss", "largest", "validation loss", "largest"),
        *("test loss", "largest", "test error (points)", "largest"),
    ]
    return (
        "Barriers of the straight ways between all pairs: the largest height of loss or error "
        "above the line between the ends, BatchNorm re-estimated at each point; the mean over "
        "the pairs and the largest. SMS candidates were retrained from one pruned parent; IMP "
        "runs share the dense network, and from phase 2 on nothing more.\n\n"
        + table(headers, _lines(study, rows), 2)
    )


def _lines(study: Study, rows: pd.DataFrame) -> Iterator[list[str]]:
    for values, own in groups(rows, "sparsity", "method"):
        yield [
            sparsity(values["sparsity"]),
            NAMES[values["method"]],
            *(_cell(over_seeds(own, name), name, study.seeds) for name in BARRIERS),
        ]


def _cell(found: Spread | None, name: str, seeds: int) -> str:
    error = "error" in name
    return number(found, seeds, scale=100 if error else 1, digits=2 if error else 3)
