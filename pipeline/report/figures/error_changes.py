"""Figure: changes of each group's errors from the dense to the pruned network."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.config.experiment import Experiment
from pipeline.report.figures import style
from pipeline.report.labels import Look, label, looks, short

MOST = 8  # panels on the page
WIDTH = 0.8  # of all bars of one sparsity


def draw(
    rows: pd.DataFrame, sizes: dict[str, int], methods: list[str], params: Experiment
) -> Figure:
    """Draw a panel per group: bars by sparsity and method, in percent of its test examples.

    A bar above zero has the newly wrong examples, one below zero the newly right ones; a point is
    the change of the error rate with its 95 % interval. All are means over the seeds.

    Args:
        rows: test_lost, test_gained (counts) and test_error_change (a fraction) of
            `pipeline.report.studies.subgroup_table`, of pruned networks.
        sizes: the number of test examples of each group, in the order of the panels.
        methods: the methods, in the order of the bars.
        params: the experiment, with the number of candidates and the seeds.

    """
    if rows.empty:
        return style.empty("No pruned network was compared with the dense one.")
    means = rows.groupby(["sparsity", "method", "measure", "group", "n"], as_index=False)[
        ["value", "low", "high"]
    ].mean()
    groups = list(sizes)[:MOST]
    height = 0.9 + 2.1 * -(-len(groups) // 2)
    figure, panels = style.new(height, len(groups), columns=2, share_y=False)
    for axes, group in zip(panels, groups, strict=True):
        _panel(axes, means[means["group"] == group], looks(methods), params.m)
        axes.set_title(f"{group} ({sizes[group]:,} test images)")
    figure.supylabel(
        "% of the group's test images\n"
        "newly right \N{LEFTWARDS ARROW}     \N{RIGHTWARDS ARROW} newly wrong",
        fontsize=9,
    )
    seeds = len(params.seeds)
    bars = "one seed" if seeds == 1 else f"means of {seeds} seeds"
    figure.supxlabel(
        f"sparsity (%), one shot; {bars}; points: their difference, 95 % interval", fontsize=9
    )
    style.legend(figure, panels[0])
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, methods: dict[str, Look], m: int) -> None:
    sparsities = sorted(set(rows["sparsity"]))
    for i, (method, look) in enumerate(methods.items()):
        measures = {
            measure: part.set_index("sparsity").reindex(sparsities)
            for measure, part in rows[rows["method"] == method].groupby("measure")
        }
        if not measures:
            continue
        step = WIDTH / len(methods)
        x = [place + style.dodge(i, len(methods), step) for place in range(len(sparsities))]
        for measure, sign, alpha in (("test_lost", 100, 0.5), ("test_gained", -100, 0.22)):
            heights = sign * measures[measure]["value"] / measures[measure]["n"]
            axes.bar(x, heights, 0.86 * step, color=look.colour, alpha=alpha, zorder=2)
        net = 100 * measures["test_error_change"][["value", "low", "high"]]
        ends = [net["value"] - net["low"], net["high"] - net["value"]]
        axes.errorbar(
            x, net["value"], yerr=ends, color=look.colour, marker=look.marker, linestyle="none",
            label=label(method, m),
            markersize=5 * look.size, markeredgecolor="white", elinewidth=1.0, zorder=3,
        )  # fmt: skip
    axes.axhline(0, color="black", linewidth=0.8, zorder=2.5)
    axes.set_xticks(range(len(sparsities)), [short(sparsity) for sparsity in sparsities])
    axes.grid(axis="y")
