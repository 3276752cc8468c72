"""Test score against sparsity, one line a method."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from pipeline.report.figures import style
from pipeline.report.labels import percent
from pipeline.report.results import Results
from pipeline.report.statistics import Spread, over_seeds


def draw(results: Results) -> Figure:
    """Draw every method's test score over the ladder of sparsities, dense as a dotted line.

    The horizontal axis is logarithmic in the weights kept, so that phases are evenly spaced.
    """
    series = _series(results)
    if not series:
        return style.empty(f"No test {results.metric.label}: no model was evaluated.")
    figure, (axes,) = style.new(3.9)
    limits = _limits(series)
    low: dict[float, int] = {}
    pruned = [method for method in series if method != "dense"]
    apart = min(0.012, 0.06 / max(1, len(pruned)))
    for method, points in series.items():
        drawn, name = style.method_look(results, method)
        means, stds = style.percents(list(points.values()))
        if method == "dense":
            axes.axhline(means[0], color=drawn.colour, linestyle=drawn.line, label=name)
            continue
        shift = 10 ** -style.dodge(pruned.index(method), len(pruned), apart)
        ticks = [1 - results.phases[phase] for phase in points]
        axes.errorbar(
            [tick * shift for tick in ticks],
            means,
            yerr=stds if any(stds) else None,
            color=drawn.colour,
            marker=drawn.marker,
            markersize=5.5 * drawn.size,
            linestyle=drawn.line,
            markeredgecolor="white",
            elinewidth=1.1,
            label=name,
            zorder=3,
        )
        for tick, mean in zip(ticks, means, strict=True):
            if limits is not None and mean < limits[0]:
                low[tick] = low.get(tick, -1) + 1
                _mark_low(axes, tick, low[tick], f"{name}: {mean:.1f}", drawn.colour)
    if limits is not None:
        axes.set_ylim(limits)
    style.below_hundred(axes, "y")
    _sparsity_axis(axes, results)
    axes.set_ylabel(f"test {results.metric.label} (%)")
    axes.set_xlabel(f"sparsity (%), spaced by phase; {style.seeds_note(results)}")
    axes.grid(axis="y")
    style.legend(figure, axes)
    return figure


def _series(results: Results) -> dict[str, dict[int, Spread]]:
    series: dict[str, dict[int, Spread]] = {}
    for method, phase, _ in results.planned:
        found = over_seeds(results, method, phase, "test_score")
        if found is not None:
            series.setdefault(method, {})[phase] = found
    return {method: series[method] for method in results.methods if method in series}


def _limits(series: dict[str, dict[int, Spread]]) -> tuple[float, float] | None:
    """Return where to cut the axis when a few points lie so low that they flatten the rest."""
    means = sorted(100 * point.mean for points in series.values() for point in points.values())
    for cut in range(1, len(means) // 4 + 1):
        rest = means[cut:]
        span = max(rest[-1] - rest[0], 1.0)
        if rest[0] - means[cut - 1] > 3 * span:
            return rest[0] - 0.3 * span, rest[-1] + 0.15 * span
    return None


def _mark_low(axes: Axes, tick: float, line: int, text: str, colour: str) -> None:
    """Write what lies below the axis at its lower edge, one ``line`` above the other."""
    axes.annotate(
        f"{text} ↓",
        (tick, 0.0),
        xycoords=("data", "axes fraction"),
        xytext=(12, 3 + 11 * line),
        textcoords="offset points",
        ha="right",
        color=colour,
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )


def _sparsity_axis(axes: Axes, results: Results) -> None:
    axes.set_xscale("log")
    axes.invert_xaxis()
    kept = [1 - sparsity for sparsity in results.phases.values()]
    axes.set_xlim(max(kept) * 1.25, min(kept) / 1.25)
    axes.xaxis.set_major_locator(FixedLocator(kept))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([percent(sparsity) for sparsity in results.phases.values()])
