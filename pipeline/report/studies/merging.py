"""Study merging: every merge rule on the same candidates, compared with the candidates."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.figures import style
from pipeline.report.labels import SERIES, label
from pipeline.report.studies.base import Study, groups, over_seeds, points_table
from pipeline.report.tables.markdown import NONE, gain, number, table

# Scores that need no merge.
_UNMERGED = {
    "mean_candidate": "mean candidate",
    "best_candidate": "best candidate",
    "ensemble": "ensemble (predictions)",
}


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row per rule, with the ensemble's score and the number of candidates included."""
    rows = points_table(study)
    compared = [measured.nodes.get("compare", {}) for measured in study.points]
    rows["ensemble"] = [values.get("ensemble", {}).get("test_score") for values in compared]
    rows["included"] = [
        len(values["included"]) if "included" in values else None for values in compared
    ]
    return rows


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw a line of the page per rule, and below them one per score without a merge."""
    known = rows.dropna(subset=["test_score"])
    if known.empty:
        return style.empty("No soup was measured.")
    by_rule = {values["method"]: part for values, part in groups(known, "method")}
    figure, (axes,) = style.new(1.6 + 0.3 * (len(by_rule) + len(_UNMERGED)))
    lines = [
        (label(str(method), study.params.m), over_seeds(part, "test_score"))
        for method, part in by_rule.items()
    ]
    lines += [(name, over_seeds(_once(known), measure)) for measure, name in _UNMERGED.items()]
    for place, (name, value) in enumerate(lines):
        if value is None:
            continue
        look = SERIES[0] if place < len(by_rule) else SERIES[4]
        axes.errorbar(
            100 * value.mean,
            place,
            xerr=100 * value.std if value.std else None,
            **style.marks(look, 7) | {"linestyle": "none"},
            label=name,
        )
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_yticks(range(len(lines)), [name for name, _ in lines])
    axes.axhline(len(by_rule) - 0.5, color=style.GREY, linewidth=0.8)
    axes.grid(axis="x")
    axes.set_xlabel(f"test {study.metric.label} (%); {style.error_bars(study.seeds)}")
    return figure


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return a row per rule, and one per score without a merge."""
    n = study.seeds
    headers = ["", "test (%)", "validation (%)", "over best candidate (points)", "included"]
    unmerged = [
        [name, number(over_seeds(_once(rows), measure), n), NONE, NONE, NONE]
        for measure, name in _UNMERGED.items()
    ]
    phases = ", ".join(str(phase) for phase in sorted(set(rows["phase"])))
    return (
        f"The {study.params.m} candidates of the uniform soup's phase {phases}, merged by each "
        f"rule. The best candidate has the highest validation {study.metric.label}. The ensemble "
        "averages the predictions of the candidates and costs as many networks.\n\n"
        + table(headers, [*_lines(study, rows), *unmerged])
    )


def _lines(study: Study, rows: pd.DataFrame) -> Iterator[list[str]]:
    for values, part in groups(rows, "method"):
        included = over_seeds(part, "included")
        yield [
            label(values["method"], study.params.m),
            number(over_seeds(part, "test_score"), study.seeds),
            number(over_seeds(part, "val_score"), study.seeds),
            gain(over_seeds(part, "gain"), study.seeds),
            NONE if included is None else f"{included.mean:.3g} of {study.params.m}",
        ]


def _once(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per seed: all rules have the same candidates."""
    return rows.drop_duplicates("seed")
