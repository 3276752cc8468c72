"""Figure: test score against sparsity, a line per method."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from pipeline.report.figures import style
from pipeline.report.labels import percent
from pipeline.report.results import Results
from pipeline.report.statistics import Spread, over_seeds


def draw(results: Results) -> Figure:
    """Draw every method's test score over the sparsities of the phases, and the dense network's.

    The horizontal axis is logarithmic in the share of weights kept, so that phases are evenly
    spaced.
    """
    series = _series(results)
    if not series:
        return style.empty(f"No test {results.metric.label}: no model was evaluated.")
    figure, (axes,) = style.new(3.9)
    pruned = [method for method in series if method != "dense"]
    apart = min(0.012, 0.06 / max(1, len(pruned)))
    for method, points in series.items():
        look, name = style.method_look(results, method)
        means, stds = style.percents(list(points.values()))
        if method == "dense":
            axes.axhline(means[0], color=look.colour, linestyle=look.line, label=name)
            continue
        shift = 10 ** -style.dodge(pruned.index(method), len(pruned), apart)
        ticks = [1 - results.phases[phase] for phase in points]
        axes.errorbar(
            [tick * shift for tick in ticks],
            means,
            yerr=stds if any(stds) else None,
            **style.marks(look),
            elinewidth=1.1,
            label=name,
            zorder=3,
        )
    limits = _limits(series)
    if limits is not None:
        axes.set_ylim(limits)
        _mark_clipped(axes, results, {name: series[name] for name in pruned}, limits[0])
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
        score = over_seeds(results, method, phase, "test_score")
        if score is not None:
            series.setdefault(method, {})[phase] = score
    return {method: series[method] for method in results.methods if method in series}


def _limits(series: dict[str, dict[int, Spread]]) -> tuple[float, float] | None:
    """Return limits of the axis that leave out a few points far below the others; else None."""
    means = sorted(100 * point.mean for points in series.values() for point in points.values())
    for cut in range(1, len(means) // 4 + 1):
        rest = means[cut:]
        span = max(rest[-1] - rest[0], 1.0)
        if rest[0] - means[cut - 1] > 3 * span:
            return rest[0] - 0.3 * span, rest[-1] + 0.15 * span
    return None


def _mark_clipped(
    axes: Axes, results: Results, series: dict[str, dict[int, Spread]], lower: float
) -> None:
    """Write name and score of each point below ``lower`` at the lower edge, one above the other."""
    lines: dict[int, int] = {}  # phase -> how many names it has
    for method, points in series.items():
        look, name = style.method_look(results, method)
        for phase, score in points.items():
            if 100 * score.mean >= lower:
                continue
            axes.annotate(
                f"{name}: {100 * score.mean:.1f} ↓",
                (1 - results.phases[phase], 0.0),
                xycoords=("data", "axes fraction"),
                xytext=(12, 3 + 11 * lines.get(phase, 0)),
                textcoords="offset points",
                ha="right",
                color=look.colour,
                fontsize=8,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )
            lines[phase] = lines.get(phase, 0) + 1


def _sparsity_axis(axes: Axes, results: Results) -> None:
    axes.set_xscale("log")
    axes.invert_xaxis()
    kept = [1 - sparsity for sparsity in results.phases.values()]
    axes.set_xlim(max(kept) * 1.25, min(kept) / 1.25)
    axes.xaxis.set_major_locator(FixedLocator(kept))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([percent(sparsity) for sparsity in results.phases.values()])
