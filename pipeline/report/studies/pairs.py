"""The average of every two candidates against the better of the two."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.figures import pairs, style
from pipeline.report.figures.pairs import KINDS
from pipeline.report.labels import sparsity
from pipeline.report.statistics import spread
from pipeline.report.studies.base import Measured, Study, groups
from pipeline.report.tables.markdown import gained, table

COLUMNS = [
    *("sparsity", "vary", "first", "second", "seed"),
    *("test_score", "better", "gain", "ood_accuracy", "ood_better", "ood_gain"),
]


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row a pair and seed; ``better`` is the higher test score of the two.

    The paper takes the better of the two by test score, so it is no choice one could make.
    ``ood`` is the mean accuracy over all corruptions and severities that the set has.
    """
    return pd.DataFrame([_record(measured) for measured in study.points], columns=COLUMNS)


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw all pairs in one plane, and a matrix for each thing that varies."""
    if rows["gain"].isna().all():
        return style.empty("No pair was measured.")
    at = ", ".join(sparsity(value) for value in dict.fromkeys(rows["sparsity"]))
    bars = "one seed" if study.seeds == 1 else f"matrices: mean of {study.seeds} seeds"
    return pairs.draw(rows, f"one shot to {at} sparsity; {bars}", study.metric)


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return, for each thing that varies, how often and by how much the average is better."""
    ood = bool(rows["ood_gain"].notna().any())
    headers = [
        *("varied", "pairs", "average better", "equal", "worse"),
        *("mean gain (points)", "smallest", "largest"),
        *(["mean gain on corruptions (points)"] if ood else []),
    ]
    absent = [name for kind, name in KINDS.items() if not (rows["vary"] == kind).any()]
    left_out = f"\nNot varied, or without a grid in the recipe: {', '.join(absent)}.\n"
    return (
        f"Gain: test {study.metric.label} of the average of two candidates minus that of the "
        "better of the two; ± is the deviation of a seed's mean.\n\n"
        + table(headers, _lines(study, rows, ood=ood))
        + (left_out if absent else "")
    )


def _record(measured: Measured) -> dict[str, Any]:
    point, nodes = measured.point, measured.nodes
    record = {**point.values, "seed": point.seed}
    found = measured.model.get("test_score")
    both = [one.get("test_score") for one in measured.candidates]
    record |= _gain("", "test_score", found, both)
    own, *others = (nodes.get(role, {}) for role in ("ood", "ood_first", "ood_second"))
    return record | _gain("ood_", "ood_accuracy", _mean(own), [_mean(each) for each in others])


def _mean(robust: dict[str, Any]) -> float | None:
    """Return the mean over all 19 corruptions, or over the main 15 of a set without the others."""
    found: float | None = robust.get("mean_19", robust.get("mean_15"))
    return found


def _gain(
    prefix: str, measure: str, found: float | None, both: list[float | None]
) -> dict[str, float]:
    known = [value for value in both if value is not None]
    if found is None or len(known) < 2:
        return {}
    return {
        measure: found,
        f"{prefix}better": max(known),
        f"{prefix}gain": found - max(known),
    }


def _lines(study: Study, rows: pd.DataFrame, *, ood: bool) -> Iterator[list[str]]:
    for values, own in groups(rows.dropna(subset=["gain"]), "vary"):
        gain = own["gain"]
        by_seed = own.groupby("seed")[["gain", "ood_gain"]].mean()
        yield [
            KINDS[values["vary"]],
            str(len(own)),
            *(f"{100 * share:.0f} %" for share in ((gain > 0).mean(), (gain == 0).mean())),
            f"{100 * (gain < 0).mean():.0f} %",
            gained(spread(by_seed["gain"].tolist()), study.seeds),
            *(gained(spread([float(end)]), 1) for end in (gain.min(), gain.max())),
            *([gained(spread(by_seed["ood_gain"].dropna().tolist()), study.seeds)] if ood else []),
        ]
