"""Figure: score of each group of the test set in the last phase, the worst groups first."""

from matplotlib.figure import Figure

from pipeline.report.figures import dots, style
from pipeline.report.results import Results

MOST = 20  # groups in a panel


def draw(results: Results) -> Figure:
    """Draw the score of every group, or of the lowest `MOST`; a panel per set of groups."""
    table = results.at_end("groups")
    if table.empty:
        return style.empty(f"No group {results.metric.group}: groups were not evaluated.")
    sets = list(dict.fromkeys(table["set"]))
    counts = [min(MOST, table.loc[table["set"] == name, "group"].nunique()) for name in sets]
    height = 0.9 + sum(0.6 + 0.3 * count for count in counts)
    figure, panels = style.new(height, len(sets), stacked=True, share_y=False, ratios=counts)
    for axes, name in zip(panels, sets, strict=True):
        rows = table[table["set"] == name]
        means = rows.groupby("group")["score"].mean().sort_values(kind="stable")
        order = [str(group) for group in means.index[:MOST]]
        dots.draw(axes, results, rows, "group", order, "score")
        shown = f"{MOST} lowest of {len(means)}" if len(means) > MOST else "lowest first"
        axes.set_title(f"{name.replace('_', ' ')}, {shown}")
    figure.supxlabel(f"{results.metric.group} (%); {style.seeds_note(results)}", fontsize=9)
    style.legend(figure, panels[0])
    return figure
