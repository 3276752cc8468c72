"""Every merge rule on the same candidates, beside the best of them, their mean and ensemble."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.figures import style
from pipeline.report.figures.lines import SERIES
from pipeline.report.labels import label
from pipeline.report.studies.base import Study, groups, over_seeds, points_table
from pipeline.report.tables.markdown import NONE, gained, number, table

# What needs no merge: the candidates themselves, and their predictions' mean.
_REST = {
    "mean_candidate": "mean candidate",
    "best_candidate": "best candidate",
    "ensemble": "ensemble (predictions)",
}


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row a rule, with the ensemble's score and the candidates it took."""
    rows = points_table(study)
    compared = [measured.nodes.get("compare", {}) for measured in study.points]
    rows["ensemble"] = [one.get("ensemble", {}).get("test_score") for one in compared]
    rows["included"] = [len(one["included"]) if "included" in one else None for one in compared]
    return rows


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw one line of the page a rule, and lines across it for what needs no merge."""
    known = rows.dropna(subset=["test_score"])
    if known.empty:
        return style.empty("No soup was measured.")
    found = {values["method"]: own for values, own in groups(known, "method")}
    figure, (axes,) = style.new(1.6 + 0.3 * (len(found) + len(_REST)))
    lines = [
        (label(str(method), study.params.m), over_seeds(own, "test_score"))
        for method, own in found.items()
    ]
    lines += [(name, over_seeds(_once(known), measure)) for measure, name in _REST.items()]
    for place, (name, value) in enumerate(lines):
        if value is None:
            continue
        look = SERIES[0] if place < len(found) else SERIES[4]
        axes.errorbar(
            100 * value.mean,
            place,
            xerr=100 * value.std if value.std else None,
            color=look.colour,
            marker=look.marker,
            markersize=7,
            markeredgecolor="white",
            linestyle="none",
            label=name,
        )
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_yticks(range(len(lines)), [name for name, _ in lines])
    axes.axhline(len(found) - 0.5, color=style.GREY, linewidth=0.8)
    axes.grid(axis="x")
    axes.set_xlabel(f"test {study.metric.label} (%); {style.error_bars(study.seeds)}")
    return figure


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return a line for every rule, and one each for what needs no merge."""
    n = study.seeds
    headers = ["", "test (%)", "validation (%)", "over best candidate (points)", "included"]
    rest = [
        [name, number(over_seeds(_once(rows), measure), n), NONE, NONE, NONE]
        for measure, name in _REST.items()
    ]
    phases = ", ".join(str(phase) for phase in sorted(set(rows["phase"])))
    return (
        f"The {study.params.m} candidates of the uniform soup's phase {phases}, merged by each "
        f"rule. Best candidate: the highest validation {study.metric.label}. The ensemble averages "
        "predictions and costs as many networks.\n\n"
        + table(headers, [*_lines(study, rows), *rest])
    )


def _lines(study: Study, rows: pd.DataFrame) -> Iterator[list[str]]:
    for values, own in groups(rows, "method"):
        included = over_seeds(own, "included")
        yield [
            label(values["method"], study.params.m),
            number(over_seeds(own, "test_score"), study.seeds),
            number(over_seeds(own, "val_score"), study.seeds),
            gained(over_seeds(own, "gain"), study.seeds),
            NONE if included is None else f"{included.mean:.3g} of {study.params.m}",
        ]


def _once(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row a seed: the candidates are every rule's."""
    return rows.drop_duplicates("seed")
