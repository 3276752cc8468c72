"""The finished artifacts of a plan, read; what is missing is named, never raised."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.evaluate.corruption_error import mean_corruption_error
from pipeline.plan.plan import Plan, Result
from pipeline.report import metric as metrics
from pipeline.report.metric import Metric
from pipeline.report.results import (
    AVERAGED,
    BEST_BY_TEST,
    COLUMNS,
    COMPARED,
    EVALUATED,
    KEY,
    ROLES,
    SHRUNK,
    TABLES,
    Results,
)
from pipeline.report.source import Records, Source

FEW = 10  # groups whose recalls are columns of the table of results
ROUNDING = 1e-3  # whole weights, layer by layer, in the smallest networks


def read(plan: Plan, artifacts: Path, without: Collection[str] = ()) -> Results:
    """Read every measurement that ``plan`` has left in the folder ``artifacts``.

    A stage that failed, or was never run, leaves a gap in the tables and its name in ``missing``.
    Nodes in ``without`` count as missing whatever lies in their folder: it is an earlier run's.
    """
    metric = metrics.of(plan, artifacts, without)
    source = Source(artifacts, set(without), metric.scores)
    rows: Records = []
    tables: dict[str, Records] = {name: [] for name in TABLES}
    dense = {row.seed: source.metrics(row.robustness) for row in plan.rows if row.method == "dense"}
    for row in plan.rows:
        key: dict[str, Any] = dict(zip(KEY, (row.method, row.phase, row.seed), strict=True))
        evaluated = source.metrics(row.evaluate)
        robust = source.metrics(row.robustness)
        shrunk = source.metrics(row.shrink)
        model = source.metrics(row.model)
        candidates = [source.metrics(name) for name in row.candidates]
        rows.append(
            key
            | {"metric": metric.name, "sparsity": _sparsity(row, evaluated), "model": row.model}
            | {name: evaluated[name] for name in (*EVALUATED, *metric.columns) if name in evaluated}
            | _own(evaluated)
            | source.size(row.model)
            | {name: model[name] for name in AVERAGED if name in model}
            | _group_measures(evaluated, metric)
            | _flat(source.metrics(row.compare), candidates)
            | _robustness(robust, dense.get(row.seed, {}))
            | _shrunk(shrunk)
        )
        _extend(tables["candidates"], key, _candidates(candidates))
        _extend(tables["layers"], key, _layers(evaluated))
        _extend(tables["groups"], key, _groups(evaluated, metric))
        _extend(tables["corruptions"], key, _corruptions(robust))
        _extend(tables["filters"], key, _filters(shrunk))
    for name, node in plan.nodes.items():
        source.note(name)
        place = {"node": name, "phase": int(node.labels.get("phase", 0))}
        if not node.study:
            _extend(tables["training"], place, source.history(name))
    columns = [*COLUMNS, *(SHRUNK if any(row.shrink for row in plan.rows) else [])]
    own = ("test_", *metric.columns)
    more = dict.fromkeys(key for row in rows for key in row if key.startswith(own))
    columns += [key for key in more if key not in columns]
    soups = {row.method for row in plan.rows if row.is_soup}
    planned = _planned(plan, soups)
    return Results(
        params=plan.params,
        planned=planned,
        missing=sorted(source.missing),
        rows=pd.DataFrame(rows, columns=columns),
        soups=[method for method in dict.fromkeys(m for m, _, _ in planned) if method in soups],
        tables={name: pd.DataFrame(tables[name], columns=TABLES[name]) for name in TABLES},
        metric=metric,
    )


def _own(evaluated: dict[str, Any]) -> dict[str, Any]:
    """Return what else a task has measured of the test split: numbers, and words about them."""
    return {
        name: value
        for name, value in evaluated.items()
        if name.startswith("test_") and isinstance(value, int | float | str)
    }


def _planned(plan: Plan, soups: set[str]) -> list[tuple[str, int, float]]:
    """Return method, phase and sparsity of all rows: dense first, then the soups."""
    found = dict.fromkeys((row.method, row.phase, row.sparsity) for row in plan.rows)
    return sorted(found, key=lambda row: (row[0] != "dense", row[0] not in soups))


def _sparsity(row: Result, evaluated: dict[str, Any]) -> float:
    """Return the planned sparsity, or the measured one where a method cannot be told (DST, STR)."""
    found: float = evaluated.get("sparsity", row.sparsity)
    return row.sparsity if abs(found - row.sparsity) < ROUNDING else found


def _extend(records: Records, key: dict[str, Any], more: Records) -> None:
    records.extend(key | record for record in more)


def _flat(compared: dict[str, Any], candidates: list[dict[str, Any]]) -> dict[str, Any]:
    flat = {name: compared[name] for name in COMPARED if name in compared}
    if "included" in flat:
        flat["included"] = len(flat["included"])
    for role in ROLES:
        for split in ("val_score", "test_score"):
            flat[f"{role}_{split}"] = compared.get(role, {}).get(split)
    scores = [one["test_score"] for one in candidates if "test_score" in one]
    if scores and len(scores) == len(candidates):
        flat[BEST_BY_TEST] = max(scores)
    return flat


def _robustness(robust: dict[str, Any], dense: dict[str, Any]) -> dict[str, Any]:
    if not robust:
        return {}
    found = (metrics.get("by_corruption", {}) for metrics in (robust, dense))
    return {
        "ood_accuracy_15": robust.get("mean_15"),
        "ood_accuracy_19": robust.get("mean_19"),
        "mce": mean_corruption_error(*found),
        "ood_synthetic": robust.get("synthetic"),
        "ood_about": robust.get("about"),
        "ood_images": robust.get("images"),
    }


def _shrunk(shrunk: dict[str, Any]) -> dict[str, Any]:
    """Return the size of the network without its pruned filters, and how much faster it is."""
    if not shrunk:
        return {}
    flat = {
        "parameters_removed": shrunk["parameters"]["removed"],
        "bytes_removed": shrunk["bytes"]["removed"],
        "macs_speedup": shrunk["macs"]["dense"] / shrunk["macs"]["removed"],
    }
    for batch, found in shrunk["latency"].items():
        size = batch.removeprefix("batch_")
        flat |= {f"latency_{name}_ms_{size}": found[f"{name}_ms"] for name in ("masked", "removed")}
        flat[f"measured_speedup_{size}"] = found["speedup"]
    return flat


def _filters(shrunk: dict[str, Any]) -> Records:
    return [{"layer": layer, **found} for layer, found in shrunk.get("filters", {}).items()]


def _candidates(metrics: list[dict[str, Any]]) -> Records:
    return [
        {"candidate": number, "test_score": values["test_score"]}
        for number, values in enumerate(metrics)
        if "test_score" in values
    ]


def _layers(evaluated: dict[str, Any]) -> Records:
    layers = evaluated.get("layers", {})
    return [{"layer": layer, "sparsity": found["sparsity"]} for layer, found in layers.items()]


def _groups(evaluated: dict[str, Any], metric: Metric) -> Records:
    """Return score and 95 % interval of every group, set by set."""
    return [
        {"split": "test", "set": name, "group": group, "score": found[metric.group_key], **found}
        for name, measured in evaluated.get("groups", {}).items()
        for group, found in measured["groups"].items()
    ]


def _group_measures(evaluated: dict[str, Any], metric: Metric) -> dict[str, Any]:
    """Return the lowest score, and of the first set of a few named groups each and their mean."""
    scores = [record["score"] for record in _groups(evaluated, metric)]
    found = {"test_worst_group": min(scores)} if scores else {}
    if "test_macro_accuracy" in evaluated:
        found["test_macro_accuracy"] = evaluated["test_macro_accuracy"]
    for name, measured in evaluated.get("groups", {}).items():
        own = {group: one[metric.group_key] for group, one in measured["groups"].items()}
        if name != "class" and len(own) <= FEW and "test_group_mean" not in found:
            found["test_group_mean"] = sum(own.values()) / len(own)
            found |= {f"test_recall/{group}": recall for group, recall in own.items()}
    return found


def _corruptions(robust: dict[str, Any]) -> Records:
    return [
        {"corruption": name, "severity": severity, "accuracy": accuracy}
        for name, accuracies in robust.get("by_corruption", {}).items()
        for severity, accuracy in enumerate(accuracies, start=1)
    ]
