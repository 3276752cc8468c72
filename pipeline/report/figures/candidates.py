"""Figure: every soup, its candidates and their ensemble, phase by phase."""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.figures import style
from pipeline.report.labels import label, percent
from pipeline.report.results import Results
from pipeline.report.statistics import over_seeds

# measure, name, marker, colour
_SHOWN = [
    ("mean_candidate_test_score", "mean candidate", "s", style.GREY),
    ("best_candidate_test_score", "best by validation", "^", "#009E73"),
    ("test_score", "soup", "o", "#0072B2"),
    ("ensemble_test_score", "ensemble (predictions)", "D", "#E69F00"),
]


def draw(results: Results) -> Figure:
    """Draw soup, candidates, their best and mean, and the ensemble; a panel per merge rule."""
    compared = results.rows.dropna(subset=["best_candidate_test_score"])
    soups = [soup for soup in results.soups if (compared["method"] == soup).any()]
    if not soups:
        return style.empty("No comparison of a soup with its candidates.")
    columns = min(len(soups), 1 if len(results.phases) > 4 else 3)
    rows = math.ceil(len(soups) / columns)
    figure, panels = style.new(1.2 + 2.4 * rows, len(soups), columns=columns)
    for axes, soup in zip(panels, soups, strict=True):
        _panel(axes, results, soup)
        axes.set_title(label(soup, results.params.m))
    figure.supylabel(f"test {results.metric.label} (%)", fontsize=9)
    figure.supxlabel(f"phase (sparsity in %); {style.seeds_note(results)}", fontsize=9)
    style.legend(figure, panels[0])
    return figure


def _panel(axes: Axes, results: Results, soup: str) -> None:
    candidates = results.tables["candidates"]
    candidates = candidates[candidates["method"] == soup]
    phases = list(results.phases)
    _scatter(axes, candidates, phases)
    for i, (measure, name, marker, colour) in enumerate(_SHOWN):
        for place, phase in enumerate(phases):
            score = over_seeds(results, soup, phase, measure)
            if score is None:
                continue
            means, stds = style.percents([score])
            axes.errorbar(
                [place + style.dodge(i, len(_SHOWN), 0.15) + 0.1],
                means,
                yerr=stds if any(stds) else None,
                color=colour,
                marker=marker,
                markersize=6.5,
                markeredgecolor="white",
                elinewidth=1.1,
                linestyle="none",
                label=name,
            )
    axes.set_xticks(range(len(phases)))
    axes.set_xticklabels(
        [f"{p}\n({percent(results.phases[p])})" for p in phases],
        fontsize=8.5 if len(phases) < 9 else 7,
    )
    margin = 0.55 if len(phases) > 1 else 1.2
    axes.set_xlim(-margin, len(phases) - 1 + margin)
    axes.grid(axis="y")
    style.below_hundred(axes, "y")


def _scatter(axes: Axes, candidates: pd.DataFrame, phases: list[int]) -> None:
    """Draw each single candidate as a small ring, left of the means."""
    known = candidates[candidates["phase"].isin(phases)]
    axes.plot(
        [phases.index(phase) - 0.3 for phase in known["phase"]],
        100 * known["test_score"],
        linestyle="none",
        marker="o",
        markersize=4,
        markerfacecolor="none",
        markeredgecolor=style.GREY,
        label="each candidate",
    )
