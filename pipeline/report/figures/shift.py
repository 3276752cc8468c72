"""Errors by group, pruned against dense: how many are new, how many mended, and the difference."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.figures import style
from pipeline.report.labels import label, looks, short
from pipeline.report.studies.base import Study
from pipeline.report.tables.subgroups import order

MOST = 8  # panels a page can hold
WIDTH = 0.8  # of all bars of one sparsity


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw one panel a group, the rarest first: bars by sparsity and method, in % of its examples.

    Bars are means over the seeds; a point is the change of the error rate with its 95 % interval,
    averaged over the seeds.
    """
    own = rows[(rows["role"] == "model") & (rows["method"] != "dense")]
    own = own[own["measure"].isin(["test_lost", "test_gained", "test_error_change"])]
    if own.empty:
        return style.empty("No pruned network was set beside the dense one.")
    sizes = dict(list(order(rows).items())[:MOST])
    own = own.groupby(["sparsity", "method", "measure", "group", "n"], as_index=False)[
        ["value", "low", "high"]
    ].mean()
    figure, panels = style.new(
        0.9 + 2.1 * -(-len(sizes) // 2), len(sizes), columns=2, share_y=False
    )
    for axes, (group, n) in zip(panels, sizes.items(), strict=True):
        _panel(axes, own[own["group"] == group], study)
        axes.set_title(f"{group} ({n:,} test images)")
    figure.supylabel(
        "newly right \N{LEFTWARDS ARROW}    % of the group's test images    "
        "\N{RIGHTWARDS ARROW} newly wrong",
        fontsize=9,
    )
    figure.supxlabel(f"sparsity (%), one shot; {_seeds(study.seeds)}", fontsize=9)
    style.legend(figure, panels[0])
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, study: Study) -> None:
    sparsities = sorted(set(rows["sparsity"]))
    methods = sorted(set(rows["method"]), key=lambda name: (name in study.soups, name))
    for i, (method, look) in enumerate(looks(methods).items()):
        found = {
            measure: part.set_index("sparsity").reindex(sparsities)
            for measure, part in rows[rows["method"] == method].groupby("measure")
        }
        step = WIDTH / len(methods)
        x = [place + style.dodge(i, len(methods), step) for place in range(len(sparsities))]
        lost, gained = (found[f"test_{name}"] for name in ("lost", "gained"))
        for counts, sign, alpha in ((lost, 100, 0.5), (gained, -100, 0.22)):
            heights = sign * counts["value"] / counts["n"]
            axes.bar(x, heights, 0.86 * step, color=look.colour, alpha=alpha, zorder=2)
        net = 100 * found["test_error_change"][["value", "low", "high"]]
        ends = [net["value"] - net["low"], net["high"] - net["value"]]
        axes.errorbar(
            x, net["value"], yerr=ends, color=look.colour, marker=look.marker, linestyle="none",
            label=label(method, study.params.m),
            markersize=5 * look.size, markeredgecolor="white", elinewidth=1.0, zorder=3,
        )  # fmt: skip
    axes.axhline(0, color="black", linewidth=0.8, zorder=2.5)
    axes.set_xticks(range(len(sparsities)), [short(sparsity) for sparsity in sparsities])
    axes.grid(axis="y")


def _seeds(seeds: int) -> str:
    many = "one seed" if seeds == 1 else f"means of {seeds} seeds"
    return f"{many}; points: their difference, 95 % interval"
