"""Looks up the paper's number for a row of the results, and the reasons why there is none.

A method's names in the paper's tables are declared in its own file (`pipeline.plan.declared`).
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from pipeline.config.experiment import Experiment, recipe_file
from pipeline.plan.declared import declared
from pipeline.plan.plan import Plan
from pipeline.prune.pattern import STRUCTURES
from pipeline.report.load import Artifacts

if TYPE_CHECKING:
    from pydantic import BaseModel

FOLDER = Path(__file__).parent
AFTER, DURING = "prune_after_training", "pruning_during_training"  # Tables 1, 4-14, and Table 2


@dataclass(frozen=True)
class Reference:
    """A number of the paper, in percent, and its table."""

    mean: float
    std: float | None
    table: int


@cache
def paper_table(name: str) -> pd.DataFrame:
    """Return the rows of pipeline/report/paper/NAME.csv."""
    return pd.read_csv(FOLDER / f"{name}.csv")


def measured(plan: Plan, artifacts: Path, without: Collection[str] = ()) -> Plan:
    """Return ``plan`` with the number of test examples that its evaluations have counted.

    Stages in ``without`` are not read: their artifacts are out of date.
    """
    paper = plan.params.paper
    examples = Artifacts(artifacts, set(without)).first_evaluated(plan, "test_examples")
    if paper is None or examples is None:
        return plan
    paper = paper.model_copy(update={"examples_here": int(examples)})
    return replace(plan, params=plan.params.model_copy(update={"paper": paper}))


def departures(params: Experiment) -> list[str]:
    """Return the settings in which this run differs from the paper's experiment of its recipe.

    The number of phases, sparsity, m and retraining are columns of the tables and not listed here.
    """
    recipe: dict[str, Any] = yaml.safe_load(recipe_file(params.recipe)[0].read_text())
    reasons = []
    for section in ("data", "network", "augmentation", "pretrain"):
        values: BaseModel = getattr(params, section)
        for key, field in type(values).model_fields.items():
            value = getattr(values, key)
            expected = recipe.get(section, {}).get(key, field.default)
            if (section, key) == ("network", "weights"):
                reasons += _other_start(params, value)
            elif value != expected and (section, key) != ("data", "path"):
                reasons.append(f"{section}.{key} is {value}, not {expected}")
    official = params.paper.test_examples if params.paper else None
    examples = params.paper.examples_here if params.paper else None
    if examples not in {official, None}:
        reasons.append(f"the test split has {examples:,} examples, not {official:,}")
    return [*reasons, *_other_method(params)]


def _other_method(params: Experiment) -> list[str]:
    """Return the settings of pruning, retraining and budget that the paper does not have."""
    reasons = []
    rule = (params.prune.criterion, params.prune.allocation)
    if params.prune.structure not in STRUCTURES:
        reasons.append(f"prune.structure is {params.prune.structure}, not weights")
    elif params.prune.structure == "weights" and rule != ("magnitude", "global"):
        reasons.append(f"pruning is {', '.join(rule)}, not magnitude, global")
    if params.budget is not None:
        reasons.append(f"budget is {params.budget}, not null")
    for key, papers in {"vary": "seed", "average": "none", "sam": "none", "distill": 0}.items():
        value = getattr(params.retrain, key)
        if value != papers:
            reasons.append(f"retrain.{key} is {value}, not {papers}")
    return reasons


def _other_start(params: Experiment, weights: str | None) -> list[str]:
    """Return the difference of the initial weights from the paper's, where it names these."""
    pretrained = params.paper.pretrained if params.paper else False
    if pretrained is None or pretrained == (weights is not None):
        return []
    return [f"network.weights is {weights or 'null'}, not {'a file' if pretrained else 'null'}"]


def lookup(
    params: Experiment, method: str, phase: int, role: str = "model", *, ood: bool = False
) -> Reference | None:
    """Return the paper's number for a method and phase of this experiment, or None.

    Data set, network, schedule, epochs, phases, target sparsity and m must all be equal; IMP's rows
    have no m.

    Args:
        params: the experiment.
        method: a method of the results, or "dense".
        phase: the phase.
        role: "model" for the method's own network (a soup is one), "best_candidate" or
            "mean_candidate".
        ood: whether to return the accuracy on corrupted images.

    """
    if params.paper is None or departures(params):
        return None
    if method == "dense":
        return _dense(params, ood=ood)
    names = declared(method).paper
    if DURING in names and role == "model" and not ood:
        return _during(params, method, phase)
    if AFTER not in names:
        return None
    rows = same_setting(params, ood=ood)
    rows = rows[rows["method"].str.cat(rows["merge"].fillna(""), " ").str.strip() == names[AFTER]]
    rows = rows[(rows["phase"] == phase) & (rows["m"].isna() | (rows["m"] == params.m))]
    rows = rows[rows["role"].isin(["model", "soup"] if role == "model" else [role])]
    return _reference(rows, "mean", "std")


def same_setting(params: Experiment, *, ood: bool = False) -> pd.DataFrame:
    """Return the paper's rows that share this run's retraining, phases and target sparsity."""
    rows = published(params, ood=ood)
    rows = rows[(rows["schedule"] == params.retrain.schedule)]
    rows = rows[rows["retrain_epochs"] == params.retrain.epochs]
    rows = rows[rows["n_phases"] == params.phases]
    return rows[_same_sparsity(rows["target_sparsity"], params)]


def published(params: Experiment, *, ood: bool = False) -> pd.DataFrame:
    """Return the paper's rows on this data set and network, for weights or filters as here."""
    rows = paper_table(AFTER)
    if params.paper is None:
        return rows.iloc[:0]
    dataset = params.paper.dataset + ("-C" if ood else "")
    rows = rows[(rows["dataset"] == dataset) & (rows["arch"] == params.paper.arch)]
    structured = params.prune.structure == "filters"
    return rows[rows["pruning"] == ("structured" if structured else "unstructured")]


def _dense(params: Experiment, *, ood: bool) -> Reference | None:
    rows = _same_network(paper_table("dense"), params)
    return _reference(rows, "ood_mean", "ood_std") if ood else _reference(rows, "mean", "std")


def _during(params: Experiment, method: str, phase: int) -> Reference | None:
    """Return the accuracy in Table 2, which has the final sparsity only, each from a full training.

    A number of Table 2 is the best of a grid; ``PAPER_SETTINGS`` of a method are that grid.
    """
    other_length = params.sparsify.epochs not in {None, params.pretrain.epochs}
    if other_length or phase != params.phases or params.prune.structure != "weights":
        return None
    grid = declared(method).paper_settings
    if any(attrgetter(key)(params) not in values for key, values in grid.items()):
        return None
    rows = _same_network(paper_table(DURING), params)
    rows = rows[rows["method"] == declared(method).paper[DURING]]
    return _reference(rows[_same_sparsity(rows["sparsity"], params)], "top1_mean", "top1_std")


def _same_network(rows: pd.DataFrame, params: Experiment) -> pd.DataFrame:
    if params.paper is None:
        return rows.iloc[:0]
    return rows[(rows["dataset"] == params.paper.dataset) & (rows["arch"] == params.paper.arch)]


def _same_sparsity(percent: pd.Series, params: Experiment) -> pd.Series:
    return (percent - 100 * params.target_sparsity).abs() < 1e-6


def _reference(rows: pd.DataFrame, mean: str, std: str) -> Reference | None:
    """Return the number of the first row: some rows are in two tables, with equal numbers."""
    rows = rows.dropna(subset=[mean])
    if rows.empty:
        return None
    first = rows.iloc[0]
    deviation = float(first[std])
    return Reference(
        float(first[mean]), None if math.isnan(deviation) else deviation, int(first["table"])
    )
