"""Figure: the loss between and around candidates, and pruning's damage against the curvature."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from pipeline.report.figures import style
from pipeline.report.labels import SERIES, short

Curves = tuple[Sequence[float], Mapping[float, list[list[float]]]]


def draw(
    rows: pd.DataFrame, curves: Curves, planes: Mapping[float, dict[str, Any]], note: str
) -> Figure:
    """Draw lines and damage above, and one panel for each of up to two planes below.

    Args:
        rows: one network each: ``sparsity``, ``network``, ``eigenvalue``, ``damage_train_loss``.
        curves: the places along the lines, and the test errors of all lines by sparsity.
        planes: the metrics of the stage plane by sparsity.
        note: below the figure, on seeds.
    """
    places = sorted(set(rows["sparsity"]))
    below = [f"plane{i}" for i in range(len(planes))]
    if len(below) == 1:
        below *= 2
    layout = [["lines", "damage"], *([below] if below else [])]
    figure, panels = style.mosaic(2.9 * len(layout) + 0.4, layout)
    _lines(panels["lines"], curves, places)
    _damage(panels["damage"], rows, places)
    for i, (place, plane) in enumerate(planes.items()):
        axes = panels[f"plane{i}"]
        picture = _plane(axes, plane)
        axes.set_title(f"{short(place)} % sparse, one seed")
        bar = figure.colorbar(picture, ax=axes, ticks=picture.levels[::5], format="%.3g")
        bar.set_label("training loss")
        bar.minorticks_off()
    style.legend(figure, panels["lines"])
    figure.supxlabel(note, fontsize=9)
    return figure


def _lines(axes: Axes, curves: Curves, places: Sequence[float]) -> None:
    """Draw the mean test error on all lines between two candidates, by phase."""
    shares, by_place = curves
    for place, look in zip(places, SERIES, strict=False):
        if by_place.get(place):
            means = 100 * np.mean(by_place[place], axis=0)
            name = f"{short(place)} % sparse"
            axes.plot(shares, means, **style.marks(look), label=name)
    axes.set_xlabel("share of the second candidate")
    axes.set_ylabel("test error (%)")
    axes.grid(axis="y")


def _damage(axes: Axes, rows: pd.DataFrame, places: Sequence[float]) -> None:
    """Draw a point per parent: candidates open, soups filled."""
    known = rows.dropna(subset=["eigenvalue", "damage_train_loss"])
    for place, look in zip(places, SERIES, strict=False):
        part = known[known["sparsity"] == place]
        soup = part["network"] == "soup"
        for each, fill in ((part[~soup], "none"), (part[soup], look.colour)):
            axes.plot(
                each["eigenvalue"],
                each["damage_train_loss"],
                linestyle="none",
                marker=look.marker,
                markersize=5 * look.size,
                markerfacecolor=fill,
                markeredgecolor=look.colour,
            )
    axes.set_xlabel("largest Hessian eigenvalue (filled: soups)")
    axes.set_ylabel("training loss added by pruning")
    axes.grid(visible=True)


def _plane(axes: Axes, plane: dict[str, Any]) -> Any:
    """Draw the training loss on the plane through three candidates, and their mean."""
    losses = np.asarray(plane["train_loss"])
    ends = max(float(losses.min()), 1e-8), float(losses.max())
    levels = np.geomspace(ends[0], ends[1] * 1.0001 + 1e-8, 16)
    picture = axes.contourf(
        plane["x"], plane["y"], losses.clip(ends[0]), levels, norm=LogNorm(*levels[[0, -1]])
    )
    for number, (x, y) in enumerate(plane["corners"]):
        axes.plot(x, y, "o", color="white", markeredgecolor="black", markersize=6)
        axes.annotate(f"c{number}", (x, y), (4, 4), textcoords="offset points", color="white")
    axes.plot(*plane["mean"], "*", color="white", markeredgecolor="black", markersize=11)
    axes.annotate("soup", plane["mean"], (5, 5), textcoords="offset points", color="white")
    axes.set_aspect("equal")
    axes.set_xlabel("distance in weight space")
    return picture
