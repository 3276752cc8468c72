"""Line plots of studies: a line per series, with mean and standard deviation over the seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from pipeline.report.figures import style
from pipeline.report.labels import Look
from pipeline.report.statistics import Spread


@dataclass(frozen=True)
class Line:
    """A series: its name, its look, and its value at each place of the axis."""

    name: str
    look: Look
    points: Mapping[Any, Spread | None]


def draw(
    axes: Axes, lines: Sequence[Line], places: Sequence[Any], labels: Sequence[str], scale: float
) -> None:
    """Draw ``lines``, their values times ``scale``, at evenly spaced ``places`` with ``labels``."""
    for i, line in enumerate(lines):
        points = [(x, line.points.get(place)) for x, place in enumerate(places)]
        shown = [(x, point) for x, point in points if point is not None]
        stds = [scale * (point.std or 0.0) for _, point in shown]
        shift = style.dodge(i, len(lines), 0.05)
        axes.errorbar(
            [x + shift for x, _ in shown],
            [scale * point.mean for _, point in shown],
            yerr=stds if any(stds) else None,
            **style.marks(line.look),
            elinewidth=1.0,
            label=line.name,
            zorder=3,
        )
    axes.set_xticks(range(len(places)), labels)
    axes.set_xlim(-0.4, len(places) - 0.6)
    axes.grid(axis="y")


def mark_zero(axes: Axes) -> None:
    """Draw the line where a difference is zero; the axis then includes it."""
    axes.axhline(0, color=style.GREY, linewidth=1.0, zorder=2)
