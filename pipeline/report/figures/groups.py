"""Score of each group of the test set at the last phase, the worst groups first."""

from matplotlib.figure import Figure

from pipeline.report.figures import dots, style
from pipeline.report.results import Results

MOST = 20  # lines a panel can hold


def draw(results: Results) -> Figure:
    """Draw the score of every group, one panel a set of groups; of many groups the lowest."""
    table = results.at_end("groups")
    if table.empty:
        return style.empty(f"No group {results.metric.group}: groups were not evaluated.")
    sets = list(dict.fromkeys(table["set"]))
    lines = [min(MOST, table.loc[table["set"] == name, "group"].nunique()) for name in sets]
    height = 0.9 + sum(0.6 + 0.3 * count for count in lines)
    figure, panels = style.new(height, len(sets), stacked=True, share_y=False, ratios=lines)
    for axes, name in zip(panels, sets, strict=True):
        own = table[table["set"] == name]
        means = own.groupby("group")["score"].mean().sort_values(kind="stable")
        order = [str(group) for group in means.index[:MOST]]
        dots.draw(axes, results, own, "group", order, "score")
        chosen = f", {MOST} lowest of {len(means)}" if len(means) > MOST else ", lowest first"
        axes.set_title(f"{name.replace('_', ' ')}{chosen}")
    figure.supxlabel(f"{results.metric.group} (%); {style.seeds_note(results)}", fontsize=9)
    style.legend(figure, panels[0])
    return figure
