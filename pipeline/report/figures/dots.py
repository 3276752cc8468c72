"""A dot plot: one line of the page a thing, one dot on it a method (Cleveland, 1985)."""

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
        drawn, name = style.method_look(results, method)
        own = table[table["method"] == method]
        lines, spreads = [], []
        for line, value in enumerate(order):
            found = spread(own.loc[own[column] == value, measure].tolist())
            if found is not None:
                lines.append(line + style.dodge(i, len(methods), 0.75 / len(methods)))
                spreads.append(found)
        means, stds = style.percents(spreads)
        axes.errorbar(
            means,
            lines,
            xerr=stds if any(stds) else None,
            color=drawn.colour,
            marker=drawn.marker,
            markersize=4.8 * drawn.size,
            markeredgecolor="white",
            markeredgewidth=0.4,
            elinewidth=0.7,
            capsize=0,
            linestyle="none",
            label=name,
        )
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.set_yticks(range(len(order)), [value.replace("_", " ") for value in order])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    style.below_hundred(axes, "x")
