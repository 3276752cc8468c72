"""Study pairs: the average of every two candidates compared with the better of the two."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.figures import pairs, style
from pipeline.report.figures.pairs import KINDS
from pipeline.report.labels import sparsity
from pipeline.report.statistics import spread
from pipeline.report.studies.base import Measured, Study, groups
from pipeline.report.tables.markdown import gain, table

COLUMNS = [
    *("sparsity", "vary", "first", "second", "seed"),
    *("test_score", "better", "gain", "ood_accuracy", "ood_better", "ood_gain"),
]


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row per pair and seed; ``better`` is the higher test score of the two.

    The paper, too, takes the better of the two by test score; in practice it is not known.
    ``ood_accuracy`` is the mean over all corruptions and severities of the set.
    """
    return pd.DataFrame([_record(measured) for measured in study.points], columns=COLUMNS)


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw all pairs as points, and a matrix for each setting that varies."""
    if rows["gain"].isna().all():
        return style.empty("No pair was measured.")
    at = ", ".join(sparsity(value) for value in dict.fromkeys(rows["sparsity"]))
    seeds = "one seed" if study.seeds == 1 else f"matrices: mean of {study.seeds} seeds"
    return pairs.draw(rows, f"one shot to {at} sparsity; {seeds}", study.metric)


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return, for each setting that varies, how often and by how much the average is better."""
    ood = bool(rows["ood_gain"].notna().any())
    headers = [
        *("varied", "pairs", "average better", "equal", "worse"),
        *("mean gain (points)", "smallest", "largest"),
        *(["mean gain on corruptions (points)"] if ood else []),
    ]
    absent = [name for kind, name in KINDS.items() if not (rows["vary"] == kind).any()]
    left_out = f"\nNot varied, or without a grid in the recipe: {', '.join(absent)}.\n"
    return (
        f"The gain is the test {study.metric.label} of the average of two candidates minus that of "
        "the better of the two; ± is the standard deviation of a seed's mean.\n\n"
        + table(headers, _lines(study, rows, ood=ood))
        + (left_out if absent else "")
    )


def _record(measured: Measured) -> dict[str, Any]:
    point, nodes = measured.point, measured.nodes
    scores = [candidate.get("test_score") for candidate in measured.candidates]
    average, *both = (_mean(nodes.get(role, {})) for role in ("ood", "ood_first", "ood_second"))
    return {
        **point.values,
        "seed": point.seed,
        **_gain("", "test_score", measured.model.get("test_score"), scores),
        **_gain("ood_", "ood_accuracy", average, both),
    }


def _mean(robust: dict[str, Any]) -> float | None:
    """Return the mean over all 19 corruptions, or over the main 15 of a set without the others."""
    mean: float | None = robust.get("mean_19", robust.get("mean_15"))
    return mean


def _gain(
    prefix: str, measure: str, average: float | None, both: list[float | None]
) -> dict[str, float]:
    known = [value for value in both if value is not None]
    if average is None or len(known) < 2:
        return {}
    return {
        measure: average,
        f"{prefix}better": max(known),
        f"{prefix}gain": average - max(known),
    }


def _lines(study: Study, rows: pd.DataFrame, *, ood: bool) -> Iterator[list[str]]:
    for values, part in groups(rows.dropna(subset=["gain"]), "vary"):
        gains = part["gain"]
        by_seed = part.groupby("seed")[["gain", "ood_gain"]].mean()
        shares = ((gains > 0).mean(), (gains == 0).mean(), (gains < 0).mean())
        on_corruptions = gain(spread(by_seed["ood_gain"].dropna().tolist()), study.seeds)
        yield [
            KINDS[values["vary"]],
            str(len(part)),
            *(f"{100 * share:.0f} %" for share in shares),
            gain(spread(by_seed["gain"].tolist()), study.seeds),
            *(gain(spread([float(end)]), 1) for end in (gains.min(), gains.max())),
            *([on_corruptions] if ood else []),
        ]
