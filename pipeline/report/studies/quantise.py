"""Study quantise: soups of quantised candidates against quantised soups, beside float32."""

from collections.abc import Iterator
from itertools import product

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.figures import lines, style
from pipeline.report.figures.lines import Line
from pipeline.report.labels import SERIES, short, sparsity
from pipeline.report.studies.base import Study, groups, over_places, over_seeds, points_table
from pipeline.report.studies.differences import by_seed, cell
from pipeline.report.tables.markdown import NONE, number, table

FLOAT = 32
CELL = ["sparsity", "distill"]
NAMES = {
    "soup": "quantised soup",
    "both": "soup of quantised candidates, quantised",
    "candidates": "the same in float32",
}


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row per network: `points_table`, and the weights that became zero.

    The candidates of a row have its bits; ``rounded_to_zero`` is a fraction of the nonzeros that
    the network had before it was quantised.
    """
    rows = points_table(study)
    rows["rounded_to_zero"] = [measured.model.get("rounded_to_zero") for measured in study.points]
    return rows


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw the test score over the sparsity: a column per bits, a row per distillation."""
    known = rows.dropna(subset=["test_score"])
    panels = list(product(dict.fromkeys(known["distill"]), dict.fromkeys(known["bits"])))
    panels = [(distill, bits) for distill, bits in panels if bits != FLOAT]
    if not panels:
        return style.empty("No quantised network was measured.")
    columns = len(dict.fromkeys(bits for _, bits in panels))
    figure, axes = style.new(0.8 + 2.2 * (len(panels) / columns), len(panels), columns=columns)
    for each, (distill, bits) in zip(axes, panels, strict=True):
        _panel(each, known[known["distill"] == distill], bits)
        each.set_title(f"int{bits}{f', distilled ({distill:g})' if distill else ''}")
    for each in axes[::columns]:
        each.set_ylabel(f"test {study.metric.label} (%)")
    style.legend(figure, axes[0])
    figure.supxlabel(f"sparsity (%); {style.error_bars(study.seeds)}", fontsize=9)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, bits: int) -> None:
    at_bits, full = rows[rows["bits"] == bits], rows[rows["bits"] == FLOAT]
    series = {
        "soup, float32": (full, "test_score"),
        NAMES["soup"]: (at_bits[at_bits["quantised"] == "soup"], "test_score"),
        NAMES["both"]: (at_bits[at_bits["quantised"] == "both"], "test_score"),
        "mean quantised candidate": (at_bits[at_bits["quantised"] == "soup"], "mean_candidate"),
    }
    places = sorted(set(rows["sparsity"]))
    drawn = [
        Line(name, look, over_places(part, "sparsity", measure))
        for (name, (part, measure)), look in zip(series.items(), SERIES, strict=False)
    ]
    lines.draw(axes, drawn, places, [short(place) for place in places], 100)


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return the scores, then the differences seed by seed."""
    return (
        "Weights are the bits of each prunable weight: symmetric, one scale for each output "
        "channel. Biases, BatchNorm and activations stay float32, and BatchNorm "
        "statistics are re-estimated. The soup of quantised candidates is their mean, quantised "
        "again; before that it is a float32 network. Candidates of a row have its bits, and the "
        f"best has the highest validation {study.metric.label}. Distillation is the weight "
        "`retrain.distill` of the dense network's scores in the candidates' loss. To zero: the "
        "soup's nonzero weights that rounding makes zero.\n\n"
        + scores(rows, study.seeds)
        + "\nDifferences in points, seed by seed; in brackets the 95 % interval of the mean.\n\n"
        + differences(rows)
    )


def scores(rows: pd.DataFrame, seeds: int) -> str:
    """Return the table of test scores."""
    headers = [
        *("sparsity", "distillation", "weights", "soup, quantised (%)", NAMES["both"] + " (%)"),
        *(NAMES["candidates"] + " (%)", "best candidate (%)", "mean candidate (%)", "to zero (%)"),
    ]
    return table(headers, _scores(rows, seeds), 3)


def differences(rows: pd.DataFrame) -> str:
    """Return the table of differences."""
    headers = [
        *("sparsity", "distillation", "weights", "soup minus mean candidate"),
        *("quantised minus float32 soup", "soup of quantised minus quantised soup"),
        f"soup minus that with distillation {_first(rows):g}",
    ]
    return table(headers, _differences(rows), 3)


def _scores(rows: pd.DataFrame, seeds: int) -> Iterator[list[str]]:
    for values, part in groups(rows, *CELL, "bits"):
        full = values["bits"] == FLOAT
        by = {key: part[part["quantised"] == key] for key in ("none", *NAMES)}
        soup = by["none" if full else "soup"]
        merged = [over_seeds(by[key], "test_score") for key in ("both", "candidates")]
        yield [
            *_place(values),
            number(over_seeds(soup, "test_score"), seeds),
            *(NONE if full else number(value, seeds) for value in merged),
            number(over_seeds(soup, "best_candidate"), seeds),
            number(over_seeds(soup, "mean_candidate"), seeds),
            NONE if full else number(over_seeds(soup, "rounded_to_zero"), seeds),
        ]


def _differences(rows: pd.DataFrame) -> Iterator[list[str]]:
    first = _first(rows)
    for values, part in groups(rows, *CELL, "bits"):
        in_float = values["bits"] == FLOAT
        same = (rows["sparsity"] == values["sparsity"]) & (rows["distill"] == values["distill"])
        full = by_seed(rows[same & (rows["bits"] == FLOAT)], "test_score")
        soup = part[part["quantised"] == ("none" if in_float else "soup")]
        score, mean = by_seed(soup, "test_score"), by_seed(soup, "mean_candidate")
        both = by_seed(part[part["quantised"] == "both"], "test_score")
        other = rows[
            (rows["sparsity"] == values["sparsity"])
            & (rows["distill"] == first)
            & (rows["bits"] == values["bits"])
            & rows["quantised"].isin(["none", "soup"])
        ]
        yield [
            *_place(values),
            cell(score, mean),
            NONE if in_float else cell(score, full),
            NONE if in_float else cell(both, score),
            NONE if values["distill"] == first else cell(score, by_seed(other, "test_score")),
        ]


def _first(rows: pd.DataFrame) -> float:
    """Return the first value of distillation, with which the others are compared."""
    return float(rows["distill"].iloc[0]) if len(rows) else 0.0


def _place(values: dict[str, float]) -> list[str]:
    kind = "float32" if values["bits"] == FLOAT else f"int{values['bits']}"
    return [sparsity(values["sparsity"]), f"{values['distill']:g}", kind]
