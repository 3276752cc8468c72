"""The paper's number for the same row, and why there is none where settings differ."""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from pipeline.config.experiment import RECIPES, Experiment
from pipeline.plan.plan import Plan
from pipeline.report.source import Source

if TYPE_CHECKING:
    from pydantic import BaseModel

FOLDER = Path(__file__).parent

# Our method names as (method, merge) of the paper's tables.
_METHODS = {
    "sms_uniform": ("SMS", "uniform"),
    "sms_greedy": ("SMS", "greedy"),
    "imp": ("IMP", ""),
    "imp_mx": ("IMP_mx", ""),
    "imp_reprune": ("IMP-RePrune", ""),
}
_DURING = {  # those of Table 2, each the best of the paper's grid of settings
    "bimp": "BIMP",
    "bimp_sms": "BIMP+SMS",
    "gmp": "GMP",
    "gmp_sms": "GMP+SMS",
    "dpf": "DPF",
    "dpf_sms": "DPF+SMS",
    "gsm": "GSM",
    "lc": "LC",
    "dnw": "DNW",
    "dst": "DST",
}
_COPIES = (2, 3)  # of its grid


@dataclass(frozen=True)
class Reference:
    """A number that the paper prints, in percent, and the table it stands in."""

    mean: float
    std: float | None
    table: int


@cache
def _table(name: str) -> pd.DataFrame:
    return pd.read_csv(FOLDER / f"{name}.csv")


def measured(plan: Plan, artifacts: Path, without: Collection[str] = ()) -> Plan:
    """Return ``plan`` with the number of test examples that its evaluations have counted.

    What nodes in ``without`` have left is out of date.
    """
    own = plan.params.paper
    found = Source(artifacts, set(without)).evaluated(plan, "test_examples")
    if own is None or found is None:
        return plan
    paper = own.model_copy(update={"examples_here": int(found)})
    return replace(plan, params=plan.params.model_copy(update={"paper": paper}))


def departures(params: Experiment) -> list[str]:
    """Return what makes this run another experiment than the paper's rows of its recipe.

    Number of phases, sparsity, m and retraining are looked up in the tables and not named here.
    """
    recipe: dict[str, Any] = yaml.safe_load((RECIPES / f"{params.recipe}.yaml").read_text())
    found = []
    for section in ("data", "network", "augmentation", "pretrain"):
        values: BaseModel = getattr(params, section)
        for key, field in type(values).model_fields.items():
            value = getattr(values, key)
            expected = recipe.get(section, {}).get(key, field.default)
            if (section, key) == ("network", "weights"):
                found += _other_start(params, value)
            elif value != expected and (section, key) != ("data", "path"):
                found.append(f"{section}.{key} is {value}, not {expected}")
    official = params.paper.test_examples if params.paper else None
    here = params.paper.examples_here if params.paper else None
    if here not in {official, None}:
        found.append(f"the test split has {here:,} examples, not {official:,}")
    weights = params.prune.structure == "weights"
    if weights and (params.prune.criterion, params.prune.allocation) != ("magnitude", "global"):
        found.append(
            f"pruning is {params.prune.criterion}, {params.prune.allocation}, not magnitude, global"
        )
    if params.retrain.vary != "seed":
        found.append(f"retrain.vary is {params.retrain.vary}, not seed")
    return found


def _other_start(params: Experiment, weights: str | None) -> list[str]:
    """Return in what the first weights differ from the paper's, where it says what these were."""
    pretrained = params.paper.pretrained if params.paper else False
    if pretrained is None or pretrained == (weights is not None):
        return []
    return [f"network.weights is {weights or 'null'}, not {'a file' if pretrained else 'null'}"]


def lookup(
    params: Experiment, method: str, phase: int, role: str = "model", *, ood: bool = False
) -> Reference | None:
    """Return the paper's number for a method and phase of this experiment, or None.

    ``role`` is "model" for a method's own network (a soup is one), "best_candidate" or
    "mean_candidate". ``ood`` asks for the accuracy on corrupted images. Everything must agree:
    data set, network, schedule, epochs, phases, target sparsity and, but for IMP, m.
    """
    if params.paper is None or departures(params):
        return None
    if method == "dense":
        return _dense(params, ood=ood)
    if method in _DURING and role == "model" and not ood:
        return _during(params, _DURING[method], phase)
    if method not in _METHODS:
        return None
    name, merge = _METHODS[method]
    rows = same_setting(params, ood=ood)
    rows = rows[(rows["method"] == name) & (rows["merge"].fillna("") == merge)]
    rows = rows[rows["phase"] == phase]
    rows = rows[rows["role"] == ("soup" if name == "SMS" and role == "model" else role)]
    if method != "imp":
        rows = rows[rows["m"] == params.m]
    return _reference(rows, "mean", "std")


def same_setting(params: Experiment, *, ood: bool = False) -> pd.DataFrame:
    """Return the paper's rows that share this run's retraining, phases and target sparsity."""
    rows = published(params, ood=ood)
    rows = rows[(rows["schedule"] == params.retrain.schedule)]
    rows = rows[rows["retrain_epochs"] == params.retrain.epochs]
    rows = rows[rows["n_phases"] == params.phases]
    return rows[_same_sparsity(rows["target_sparsity"], params)]


def published(params: Experiment, *, ood: bool = False) -> pd.DataFrame:
    """Return all rows of the paper on this recipe's data set and network, so pruned."""
    rows = _table("prune_after_training")
    if params.paper is None:
        return rows.iloc[:0]
    dataset = params.paper.dataset + ("-C" if ood else "")
    rows = rows[(rows["dataset"] == dataset) & (rows["arch"] == params.paper.arch)]
    structured = params.prune.structure == "filters"
    return rows[rows["pruning"] == ("structured" if structured else "unstructured")]


def _dense(params: Experiment, *, ood: bool) -> Reference | None:
    rows = _table("dense")
    if params.paper is not None:
        rows = rows[rows["dataset"] == params.paper.dataset]
        rows = rows[rows["arch"] == params.paper.arch]
    return _reference(rows, "ood_mean", "ood_std") if ood else _reference(rows, "mean", "std")


def _during(params: Experiment, name: str, phase: int) -> Reference | None:
    """Return Table 2's accuracy, which the paper prints for the final sparsity only."""
    rows = _table("pruning_during_training")
    if params.paper is None or phase != params.phases or params.prune.structure != "weights":
        return None
    other_length = params.sparsify.epochs not in {None, params.pretrain.epochs}
    if other_length or (name.endswith("+SMS") and params.m not in _COPIES):
        return None
    if (
        name.startswith("DPF") and params.sparsify.mask_interval
    ):  # the paper's mask changes with its level
        return None
    rows = rows[(rows["dataset"] == params.paper.dataset) & (rows["arch"] == params.paper.arch)]
    rows = rows[(rows["method"] == name) & _same_sparsity(rows["sparsity"], params)]
    return _reference(rows, "top1_mean", "top1_std")


def _same_sparsity(percent: pd.Series, params: Experiment) -> pd.Series:
    return (percent - 100 * params.target_sparsity).abs() < 1e-6


def _reference(rows: pd.DataFrame, mean: str, std: str) -> Reference | None:
    """Return the first row's number: the paper prints some rows in two tables, alike."""
    rows = rows.dropna(subset=[mean])
    if rows.empty:
        return None
    first = rows.iloc[0]
    deviation = float(first[std])
    return Reference(
        float(first[mean]), None if math.isnan(deviation) else deviation, int(first["table"])
    )
