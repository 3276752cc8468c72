"""Figure: averages of two candidates against the better one, as points and as matrices."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from pipeline.report.figures import style
from pipeline.report.labels import SERIES
from pipeline.report.metric import Metric

if TYPE_CHECKING:
    from matplotlib.image import AxesImage

KINDS = {
    "seed": "random seed",
    "weight_decay": "weight decay",
    "epochs": "epochs",
    "learning_rate": "initial learning rate",
}


def draw(rows: pd.DataFrame, note: str, metric: Metric) -> Figure:
    """Draw average against better candidate as in the paper, and below a matrix per kind of pair.

    ``rows`` has, for every pair and seed, ``vary``, ``first``, ``second``, ``test_score``,
    ``better`` and ``gain``, and the last three on corrupted images as ``ood_...`` or NaN.
    """
    kinds = [kind for kind in KINDS if (rows["vary"] == kind).any()]
    clouds = ["test", "ood"] if rows["ood_accuracy"].notna().any() else ["test"]
    pairs = [
        [kinds[i], kinds[i + 1] if i + 1 < len(kinds) else "."] for i in range(0, len(kinds), 2)
    ]
    top = clouds if len(clouds) == 2 else ["test", "test"]
    figure, panels = style.mosaic(3.4 + 3.0 * len(pairs), [top, *pairs])
    _cloud(panels["test"], rows, ("better", "test_score"), f"test {metric.label} (%)")
    if "ood" in clouds:
        _cloud(panels["ood"], rows, ("ood_better", "ood_accuracy"), "accuracy on corruptions (%)")
    largest = max(100 * float(_means(rows)["gain"].abs().max()), 0.01)
    for kind in kinds:
        picture = _matrix(panels[kind], _means(rows[rows["vary"] == kind]), kind, largest)
    bar = figure.colorbar(picture, ax=[panels[kind] for kind in kinds], shrink=0.6, aspect=30)
    bar.set_label(f"average minus better of the two (points of test {metric.label})")
    style.legend(figure, panels["test"])
    figure.supxlabel(note, fontsize=9)
    return figure


def _cloud(axes: Axes, rows: pd.DataFrame, measures: tuple[str, str], score: str) -> None:
    """Draw a point per pair: the better candidate's ``score``, and the average's above it."""
    known = rows.dropna(subset=list(measures))
    values = 100 * known[list(measures)].to_numpy(dtype=float)
    margin = 0.06 * max(float(np.ptp(values)), 0.5)
    ends = (float(values.min()) - margin, float(values.max()) + margin)
    axes.plot(ends, ends, color=style.GREY, linewidth=1.0, zorder=1, label="equal; below: worse")
    for (kind, name), look in zip(KINDS.items(), SERIES, strict=False):
        of_kind = (known["vary"] == kind).to_numpy()
        if of_kind.any():
            axes.plot(
                values[of_kind, 0],
                values[of_kind, 1],
                linestyle="none",
                marker=look.marker,
                markersize=4.5,
                markerfacecolor="none",
                markeredgecolor=look.colour,
                markeredgewidth=1.0,
                label=name,
            )
    axes.set_xlim(ends)
    axes.set_ylim(ends)
    axes.grid(visible=True)
    axes.set_xlabel(f"better of the two: {score}")
    axes.set_ylabel(f"average of the two: {score}" if len(score) < 20 else score)


def _matrix(axes: Axes, means: pd.DataFrame, kind: str, largest: float) -> "AxesImage":
    """Draw a matrix with the gain of each pair, in points, as number and colour."""
    values = sorted({*means["first"], *means["second"]})
    n = len(values)
    cells = np.full((n, n), np.nan)
    for first, second, gain in zip(means["first"], means["second"], means["gain"], strict=True):
        low, high = sorted((values.index(first), values.index(second)))
        cells[high, low] = 100 * gain
    shown = cells[1:, :-1]
    picture = axes.imshow(shown, cmap="PuOr", norm=Normalize(-largest, largest), aspect="auto")
    for (row, column), gain in np.ndenumerate(shown):
        if not np.isnan(gain):
            dark = luminance(tuple(picture.to_rgba(gain))) < 0.5
            axes.text(
                column,
                row,
                _signed(gain),
                ha="center",
                va="center",
                fontsize=7,
                color="white" if dark else "black",
            )
    names = _names(values, kind)
    axes.set_xticks(range(n - 1), names[:-1], fontsize=7)
    axes.set_yticks(range(n - 1), names[1:], fontsize=7)
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_title(KINDS[kind])
    return picture


def luminance(colour: Sequence[float]) -> float:
    """Return the luminance 0.299 R + 0.587 G + 0.114 B of a colour in [0, 1] (ITU BT.601)."""
    red, green, blue = colour[:3]
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _signed(gain: float) -> str:
    text = f"{gain:+.1f}"
    return "0" if float(text) == 0 else text


def _names(values: Sequence[float], kind: str) -> list[str]:
    if kind == "weight_decay":
        return [f"{value:.2g}".replace("e-0", "e-") for value in values]
    return [f"{value:g}" for value in values]


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each pair's mean gain over the seeds."""
    means: pd.DataFrame = (
        rows.dropna(subset=["gain"])
        .groupby(["vary", "first", "second"], sort=False, as_index=False)
        .agg(gain=("gain", "mean"))
    )
    return means
