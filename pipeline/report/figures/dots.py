"""Dot plots: a line per group or corruption, and on it a dot per method (Cleveland, 1985)."""

import pandas as pd
from matplotlib.axes import Axes

from pipeline.report.figures import style
from pipeline.report.results import Results
from pipeline.report.statistics import spread


def draw(
    axes: Axes, results: Results, table: pd.DataFrame, column: str, order: list[str], measure: str
) -> None:
    """Draw mean and standard deviation over seeds of ``measure`` (a fraction) in percent.

    ``table`` has one value for each method, seed and ``column``; ``order`` lists the values of
    ``column`` from top to bottom.
    """
    methods = [method for method in results.methods if (table["method"] == method).any()]
    for line in range(0, len(order), 2):
        axes.axhspan(line - 0.5, line + 0.5, color="#f3f3f3", linewidth=0, zorder=0)
    for i, method in enumerate(methods):
        look, name = style.method_look(results, method)
        rows = table[table["method"] == method]
        lines, spreads = [], []
        for line, value in enumerate(order):
            values = spread(rows.loc[rows[column] == value, measure].tolist())
            if values is not None:
                lines.append(line + style.dodge(i, len(methods), 0.75 / len(methods)))
                spreads.append(values)
        means, stds = style.percents(spreads)
        axes.errorbar(
            means,
            lines,
            xerr=stds if any(stds) else None,
            **style.marks(look, 4.8) | {"linestyle": "none"},
            markeredgewidth=0.4,
            elinewidth=0.7,
            capsize=0,
            label=name,
        )
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.set_yticks(range(len(order)), [value.replace("_", " ") for value in order])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    style.below_hundred(axes, "x")
