"""The style of all figures: readable in print, in grey, and to colour-blind readers."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from pipeline.report.labels import Look, label, looks
from pipeline.report.results import Results
from pipeline.report.statistics import Spread

if TYPE_CHECKING:
    from matplotlib.artist import Artist

WIDTH = 6.5  # inches, the text width of a page
ROW = 0.17  # inches, of a row of a legend
DPI = 200
GREY = "#767676"

_SETTINGS = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same on every machine
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "grid.color": "#e2e2e2",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 5.5,
    "lines.markeredgewidth": 0.6,
    "errorbar.capsize": 2,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 2.6,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}


@contextmanager
def look() -> Iterator[None]:
    """Give the block matplotlib's defaults with our settings, and restore the user's after it."""
    with mpl.rc_context():
        style.use(["default", _SETTINGS])
        yield


def new(
    height: float,
    panels: int = 1,
    *,
    stacked: bool = False,
    columns: int = 0,
    share_y: bool = True,
    ratios: Sequence[float] | None = None,
) -> tuple[Figure, list[Axes]]:
    """Return a figure of `WIDTH` x ``height`` inches with panels side by side, or stacked.

    ``columns`` is the number of panels side by side (0: all); further panels follow below.
    """
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    if stacked:
        axes = figure.subplots(panels, 1, squeeze=False, sharey=share_y, height_ratios=ratios)
    else:
        columns = columns or panels
        rows = math.ceil(panels / columns)
        axes = figure.subplots(rows, columns, squeeze=False, sharey=share_y, width_ratios=ratios)
    for unused in axes.flat[panels:]:
        unused.remove()
    return figure, list(axes.flat[:panels])


def mosaic(height: float, rows: Sequence[Sequence[str]]) -> tuple[Figure, dict[str, Axes]]:
    """Return a figure of `WIDTH` x ``height`` inches with panels arranged as the names in ``rows``.

    A name in several places is one large panel, and ``.`` leaves a place empty.
    """
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplot_mosaic([list(row) for row in rows])


def empty(sentence: str) -> Figure:
    """Return a figure that has a ``sentence`` in the place of a missing drawing."""
    figure, (axes,) = new(1.2)
    axes.axis("off")
    axes.text(0.5, 0.5, sentence, ha="center", va="center", color=GREY)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write ``figure`` as PNG; equal figures have equal bytes."""
    figure.savefig(path, dpi=DPI, metadata={"Software": None})


def legend(figure: Figure, axes: Axes) -> None:
    """Put the legend of ``axes``, if anything is drawn, above the figure in as many columns as fit.

    Rows beyond the second make the figure higher.
    """
    handles: dict[str, Artist] = {}
    for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
        handles.setdefault(name, handle[0] if isinstance(handle, ErrorbarContainer) else handle)
    n = len(handles)
    if not n:
        return
    inches = 0.55 + 0.068 * max(map(len, handles))
    columns = min(max(1, int(WIDTH / inches)), math.ceil(n / 2) if n > 3 else 3)
    figure.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=columns)
    further = max(0, math.ceil(n / columns) - 2)
    figure.set_size_inches(WIDTH, figure.get_size_inches()[1] + ROW * further)


def below_hundred(axes: Axes, axis: str) -> None:
    """End a percent axis at 100.5 where error bars reach beyond 100."""
    if axis == "x" and axes.get_xlim()[1] > 100:
        axes.set_xlim(right=100.5)
    if axis == "y" and axes.get_ylim()[1] > 100:
        axes.set_ylim(top=100.5)


def method_look(results: Results, method: str) -> tuple[Look, str]:
    """Return look and label of ``method``."""
    return looks(results.methods)[method], label(method, results.params.m)


def marks(look: Look, size: float = 5.5) -> dict[str, Any]:
    """Return the arguments of matplotlib for a line with markers of ``size`` points."""
    return {
        "color": look.colour,
        "marker": look.marker,
        "markersize": size * look.size,
        "markeredgecolor": "white",
        "linestyle": look.line,
    }


def dodge(i: int, n: int, step: float) -> float:
    """Return the offset of the ``i``-th of ``n`` neighbours around 0, ``step`` apart."""
    return (i - (n - 1) / 2) * step


def percents(spreads: Sequence[Spread]) -> tuple[list[float], list[float]]:
    """Return means and standard deviations in percent, 0 where one seed has none."""
    return [100 * s.mean for s in spreads], [100 * (s.std or 0.0) for s in spreads]


def seeds_note(results: Results) -> str:
    """Return the meaning of the error bars, for an axis label."""
    return error_bars(len(results.params.seeds))


def error_bars(seeds: int) -> str:
    """Return the meaning of the error bars over ``seeds`` seeds."""
    return "one seed" if seeds == 1 else f"mean and standard deviation of {seeds} seeds"
