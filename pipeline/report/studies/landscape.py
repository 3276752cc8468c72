"""Study landscape: lines, planes, curvature and gradient noise, and what pruning makes of them."""

from collections.abc import Iterator
from functools import partial
from statistics import fmean
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.figures import landscape, style
from pipeline.report.labels import sparsity
from pipeline.report.studies import correlations
from pipeline.report.studies.base import KEY, Measured, Study, groups, over_seeds
from pipeline.report.studies.correlations import within
from pipeline.report.studies.differences import by_seed, cell
from pipeline.report.tables.markdown import (
    Columns,
    column_headers,
    column_numbers,
    number,
    table,
)

VALUES = ["sparsity", "network"]
# Metrics of the stages curvature and damage. Losses and curvature are of the training images.
CURVATURE = [
    *("train_loss", "eigenvalue", "trace", "trace_error"),
    *("gradient_noise", "gradient_norm_squared", "norm_squared"),
]
SECOND_ORDER = ["step_squared", "slope", "curvature", "predicted"]
DERIVED = [
    "scaled_eigenvalue",  # eigenvalue * norm_squared
    "damage",  # of the test score by pruning, before retraining
    "damage_test_loss",
    "damage_train_loss",
    "next_score",  # test score after the next phase's retraining, the mean of the parent's copies
]
BARRIERS = ["train_loss_barrier_mean", "test_error_barrier_mean", "test_error_barrier_max"]
COLUMNS = [*VALUES, *KEY, "test_score", "test_loss", *CURVATURE, *SECOND_ORDER, *DERIVED, *BARRIERS]

GEOMETRY: Columns = {
    "test_score": ("test score (%)", 100, 2),
    "train_loss": ("training loss", 1, 4),
    "eigenvalue": ("largest eigenvalue", 1, 2),
    "trace": ("trace", 1, 1),
    "gradient_noise": ("gradient noise", 1, 3),
    "norm_squared": ("squared norm", 1, 1),
    "scaled_eigenvalue": ("eigenvalue x squared norm", 1, 0),
}
PRUNING: Columns = {
    "step_squared": ("squared norm removed", 1, 1),
    "predicted": ("predicted rise of training loss", 1, 3),
    "damage_train_loss": ("rise of training loss", 1, 3),
    "damage": ("loss of test score (points)", 100, 2),
    "next_score": ("retrained: test score (%)", 100, 2),
}
CAUSES = [
    *("eigenvalue", "trace", "gradient_noise", "train_loss", "step_squared", "predicted"),
]
EFFECTS = ("damage_train_loss", "damage", "next_score")


def tabulate(study: Study) -> pd.DataFrame:
    """Return one row per network: each phase's soup, and its candidates."""
    return pd.DataFrame([_record(measured) for measured in study.points], columns=COLUMNS)


def _record(measured: Measured) -> dict[str, Any]:
    nodes = measured.nodes
    at, pruned = nodes.get("curvature", {}), nodes.get("damage", {})
    record = measured.key | {key: measured.model.get(key) for key in ("test_score", "test_loss")}
    record |= {key: at.get(key) for key in CURVATURE}
    record |= {key: pruned.get(key) for key in SECOND_ORDER}
    record |= {key: nodes.get("interpolate", {}).get(key) for key in BARRIERS}
    if "eigenvalue" in at:
        record["scaled_eigenvalue"] = at["eigenvalue"] * at["norm_squared"]
    if "after" in pruned:
        for name, split, measure in (
            ("damage", "test", "error"),
            ("damage_test_loss", "test", "loss"),
            ("damage_train_loss", "train", "loss"),
        ):
            before, after = (pruned[when][split][measure] for when in ("before", "after"))
            record[name] = after - before
    copies = [node for role, node in nodes.items() if role.startswith("next")]
    if copies and all(copies):
        record["next_score"] = fmean(copy["test_score"] for copy in copies)
    return record


def draw(study: Study, rows: pd.DataFrame) -> Figure:
    """Draw lines, damage against the eigenvalue, and the planes of the first and last phase."""
    if rows["eigenvalue"].isna().all():
        return style.empty("No landscape was measured.")
    curves: dict[float, list[list[float]]] = {}
    planes, shares = {}, [0.0, 1.0]
    for measured in study.points:
        place, lines = measured.point.values["sparsity"], measured.nodes.get("interpolate", {})
        shares = lines.get("shares", shares)
        for pair in lines.get("pairs", []):
            curves.setdefault(place, []).append(pair["curves"]["test_error"])
        if "x" in measured.nodes.get("plane", {}):
            planes[place] = measured.nodes["plane"]
    ends = list(planes)[:: max(1, len(planes) - 1)][:2]
    shown = {place: planes[place] for place in ends}
    seeds = "one seed" if study.seeds == 1 else f"{study.seeds} seeds"
    note = f"lines: mean over all pairs, {seeds}; points: a network each"
    return landscape.draw(rows, (shares, curves), shown, note)


def text(study: Study, rows: pd.DataFrame) -> str:
    """Return the tables of the networks, of pruning, of correlations and of barriers."""
    return (
        "Curvature and gradient noise are those of the training loss without augmentation and "
        "weight decay, over the weights that are kept (biases and BatchNorm's included), with "
        "BatchNorm's statistics those of each batch (losses before and after pruning have "
        "statistics of augmented images, unless augmentation.plain_batchnorm is true). The "
        "largest eigenvalue of the Hessian is found by Lanczos iterations, its trace estimated "
        "by random signs; gradient noise is the trace of the covariance of gradients of batches "
        "of at most "
        f"{study.params.pretrain.batch_size}. An eigenvalue depends on the scale of the weights "
        "before BatchNorm, its product with the "
        "squared norm does not when all are scaled alike. Differences are taken seed by seed "
        "(soup minus the mean of its candidates), with the 95 % interval of their mean.\n\n"
        + networks(rows, study.seeds)
        + "\nEach network is pruned for the next phase, and copies are retrained: m of the soup, "
        "one of each candidate, with the same seeds. The rise of the loss is measured before "
        "retraining, with BatchNorm re-estimated. Its prediction is <g, d> + 1/2 <d, H d>, with d "
        "the change of the weights.\n\n"
        + pruning(rows, study.seeds)
        + "\nPearson correlations after the mean of each seed is subtracted, with 95 % intervals. "
        "All parents: soups and candidates. A soup differs from its candidates in every measure at "
        "once, so only the correlations among candidates say whether one measure follows another "
        "without averaging. Intervals are not corrected for their number.\n\n"
        + correlation_table(rows)
        + "\nBarriers between candidates (height above the line between the ends), over pairs.\n\n"
        + barriers(rows, study.seeds)
    )


def networks(rows: pd.DataFrame, seeds: int) -> str:
    """Return the table of losses, curvature and gradient noise at soups and candidates."""
    return _table(rows, seeds, GEOMETRY)


def pruning(rows: pd.DataFrame, seeds: int) -> str:
    """Return the table of what pruning and the next phase's retraining make of each parent."""
    return _table(_parents(rows), seeds, PRUNING)


def correlation_table(rows: pd.DataFrame) -> str:
    """Return the table of correlations over the parents of each phase."""
    headers = ["sparsity", "measure", "parents", *(_header(effect) for effect in EFFECTS)]
    return table(headers, _correlations(_parents(rows)), 3)


def barriers(rows: pd.DataFrame, seeds: int) -> str:
    """Return the table of barriers between candidates."""
    headers = ["sparsity", "training loss, mean", "test error (points), mean", "largest"]
    lines = [
        [
            sparsity(values["sparsity"]),
            number(over_seeds(part, BARRIERS[0]), seeds, scale=1, digits=4),
            *(number(over_seeds(part, key), seeds) for key in BARRIERS[1:]),
        ]
        for values, part in groups(rows[rows["network"] == "soup"], "sparsity")
    ]
    return table(headers, lines)


def _parents(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the networks that are pruned: those of all phases but the last."""
    return rows[rows["phase"] < rows["phase"].max()] if len(rows) else rows


def _header(measure: str) -> str:
    return {**GEOMETRY, **PRUNING}[measure][0]


def _table(rows: pd.DataFrame, seeds: int, columns: Columns) -> str:
    """Return soup, mean candidate and their difference for each phase."""
    lines = []
    for values, part in groups(rows, "sparsity"):
        place, soups = sparsity(values["sparsity"]), part[part["network"] == "soup"]
        others = part[part["network"] != "soup"]
        means = others.groupby("seed", as_index=False)[list(columns)].mean()
        for name, each in (("soup", soups), ("mean candidate", means)):
            lines.append([place, name, *column_numbers(columns, partial(over_seeds, each), seeds)])
        minus = [
            cell(by_seed(soups, key), by_seed(others, key), scale=scale, digits=digits)
            for key, (_, scale, digits) in columns.items()
        ]
        lines.append([place, "soup minus mean candidate", *minus])
    return table(["sparsity", "network", *column_headers(columns)], lines, 2)


def _correlations(rows: pd.DataFrame) -> Iterator[list[str]]:
    for values, part in groups(rows, "sparsity"):
        for name, each in (("all", part), ("candidates", part[part["network"] != "soup"])):
            for cause in CAUSES:
                by_effect = [within(each, cause, effect, ["seed"]) for effect in EFFECTS]
                cells = map(correlations.cell, by_effect)
                yield [sparsity(values["sparsity"]), _header(cause), name, *cells]
