"""Figure: accuracy on corrupted images in the last phase, by corruption and by severity."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.figures import dots, style
from pipeline.report.results import Results
from pipeline.report.statistics import spread
from pipeline.report.tables.corruptions import FAMILIES, mean_over, synthetic


def draw(results: Results) -> Figure:
    """Draw each corruption's mean over severities, and each severity's mean over corruptions."""
    table = results.at_end("corruptions")
    if table.empty:
        return style.empty(
            f"No {results.metric.label} on corrupted images: robustness was not evaluated."
        )
    names = set(table["corruption"])
    known = [name for family in FAMILIES.values() for name in family]
    order = [name for name in known if name in names] + sorted(names - set(known))
    figure, (left, right) = style.new(1.6 + 0.3 * len(order), 2, share_y=False, ratios=(1.4, 1))
    means = mean_over(table, "corruption")
    dots.draw(left, results, means, "corruption", order, "accuracy")
    _separate(left, order)
    left.set_xlabel("accuracy (%),\nmean of severities 1 to 5")
    _severities(right, results)
    kind = "synthetic, not the official images" if synthetic(results) else "official images"
    figure.supxlabel(f"{kind}; {style.seeds_note(results)}", fontsize=9)
    style.legend(figure, left)
    return figure


def _severities(axes: Axes, results: Results) -> None:
    means = mean_over(results.at_end("corruptions"), "severity")
    methods = [method for method in results.methods if (means["method"] == method).any()]
    apart = min(0.06, 0.4 / max(1, len(methods)))
    for i, method in enumerate(methods):
        rows = means[means["method"] == method]
        look, name = style.method_look(results, method)
        severities = sorted(set(rows["severity"]))
        spreads = [spread(rows.loc[rows["severity"] == s, "accuracy"].tolist()) for s in severities]
        values, stds = style.percents([s for s in spreads if s is not None])
        axes.errorbar(
            [severity + style.dodge(i, len(methods), apart) for severity in severities],
            values,
            yerr=stds if any(stds) else None,
            **style.marks(look, 5),
            elinewidth=0.8,
            capsize=0,
            label=name,
        )
    axes.set_xticks(sorted(set(means["severity"])))
    axes.set_xlabel("severity")
    types = results.at_end("corruptions")["corruption"].nunique()
    axes.set_ylabel(f"accuracy (%), mean over {types} corruptions")
    axes.grid(axis="y")
    style.below_hundred(axes, "y")


def _separate(axes: Axes, order: list[str]) -> None:
    """Draw a line between families of corruptions."""
    family = {name: kind for kind, names in FAMILIES.items() for name in names}
    for line in range(1, len(order)):
        if family.get(order[line]) != family.get(order[line - 1]):
            axes.axhline(line - 0.5, color=style.GREY, linewidth=0.6)
