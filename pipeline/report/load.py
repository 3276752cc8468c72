"""Reads the measurements of a plan from its artifacts into tables, and lists what is missing."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.evaluate.corruption_error import mean_corruption_error
from pipeline.plan.plan import Plan, Result
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
from pipeline.report.training_cost import trained_images

Metrics = dict[str, Any]
Records = list[dict[str, Any]]

GROUP_COLUMNS = 10  # a set of at most so many groups has a column a group in the table of results


@dataclass
class Artifacts:
    """The JSON files of the stages in ``folder``.

    ``missing`` collects every stage without a result; a stage that is in it from the start is not
    read. ``rename`` is applied to all metrics (`Metric.rename_scores`).
    """

    folder: Path
    missing: set[str]
    rename: Callable[[Metrics], Metrics] = dict

    def check_folder(self, stage: str) -> None:
        """Add ``stage`` to ``missing`` if it has no folder."""
        if not (self.folder / stage).is_dir():
            self.missing.add(stage)

    def metrics(self, stage: str | None) -> Metrics:
        """Return the metrics of ``stage``; if there are none, {}, and add it to ``missing``."""
        metrics = None if stage is None else self._json(stage, "metrics.json")
        if isinstance(metrics, dict):
            return self.rename(metrics)
        if stage is not None:
            self.missing.add(stage)
        return {}

    def first_evaluated(self, plan: Plan, key: str) -> Any:
        """Return ``key`` of the first evaluation of ``plan`` that has it, or None."""
        stages = (node.name for node in plan.nodes.values() if node.script == "evaluate")
        values = (self.metrics(stage).get(key) for stage in stages)
        return next((value for value in values if value is not None), None)

    def history(self, stage: str) -> Records:
        """Return the epochs of a training; [] for other stages."""
        epochs = self._json(stage, "history.json")
        return epochs if isinstance(epochs, list) else []

    def stored_bytes(self, stage: str) -> dict[str, int]:
        """Return the size of the model file of ``stage``, or {} if it has none."""
        file = self.folder / stage / "model.safetensors"
        if stage in self.missing or not file.is_file():
            return {}
        return {"stored_bytes": file.stat().st_size}

    def _json(self, stage: str, file: str) -> Any:
        if stage in self.missing:
            return None
        try:
            return json.loads((self.folder / stage / file).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None


def metric_of(plan: Plan, artifacts: Path, without: Collection[str] = ()) -> Metric:
    """Return the metric that the evaluations of ``plan`` name; accuracy if none does.

    Stages in ``without`` are not read: their artifacts are out of date.
    """
    name = Artifacts(artifacts, set(without)).first_evaluated(plan, "metric")
    return Metric() if name is None else Metric(str(name))


def read(plan: Plan, folder: Path, without: Collection[str] = ()) -> Results:
    """Return all measurements of ``plan`` in the artifacts of ``folder``.

    A stage that failed or was never run leaves a gap in the tables and its name in ``missing``.
    Stages in ``without`` count as missing: their artifacts are out of date.
    """
    metric = metric_of(plan, folder, without)
    artifacts = Artifacts(folder, set(without), metric.rename_scores)
    dense = {
        row.seed: artifacts.metrics(row.robustness) for row in plan.rows if row.method == "dense"
    }
    rows: Records = []
    tables: dict[str, Records] = {name: [] for name in TABLES}
    for row in plan.rows:
        key = dict(zip(KEY, (row.method, row.phase, row.seed), strict=True))
        rows.append(key | _row(row, artifacts, dense.get(row.seed, {}), metric))
        for name, records in _details(row, artifacts, metric).items():
            tables[name] += [key | record for record in records]
    for name, node in plan.nodes.items():
        artifacts.check_folder(name)
        if not node.study:
            place = {"node": name, "phase": int(node.labels.get("phase", 0))}
            tables["training"] += [place | epoch for epoch in artifacts.history(name)]
    soups = {row.method for row in plan.rows if row.is_soup}
    planned = _planned(plan, soups)
    return Results(
        params=plan.params,
        planned=planned,
        missing=sorted(artifacts.missing),
        rows=pd.DataFrame(rows, columns=_columns(plan, rows, metric)),
        soups=[method for method in dict.fromkeys(m for m, _, _ in planned) if method in soups],
        tables={name: pd.DataFrame(tables[name], columns=TABLES[name]) for name in TABLES},
        metric=metric,
        trained_images=trained_images(plan, folder, artifacts.missing),
        **_semi_structured(plan, artifacts),
    )


def _semi_structured(plan: Plan, artifacts: Artifacts) -> dict[str, Any]:
    """Return the layers that N:M pruning leaves dense and the sparsity of all, equal for all."""
    structure = plan.params.prune.structure
    for node in plan.nodes.values():
        if node.script == "prune" and node.arguments.get("structure") == structure:
            metrics = artifacts.metrics(node.name)
            if "dense_layers" in metrics:
                return {key: metrics[key] for key in ("dense_layers", "sparsity")}
    return {}


def _planned(plan: Plan, soups: set[str]) -> list[tuple[str, int, float]]:
    """Return method, phase and sparsity of all rows: dense first, then the soups."""
    planned = dict.fromkeys((row.method, row.phase, row.sparsity) for row in plan.rows)
    return sorted(planned, key=lambda row: (row[0] != "dense", row[0] not in soups))


def _columns(plan: Plan, rows: Records, metric: Metric) -> list[str]:
    """Return the columns of the table of results: the fixed ones, then those of the task."""
    columns = [*COLUMNS, *(SHRUNK if any(row.shrink for row in plan.rows) else [])]
    task = ("test_", *metric.columns)
    further = dict.fromkeys(key for row in rows for key in row if key.startswith(task))
    return columns + [key for key in further if key not in columns]


def _row(row: Result, artifacts: Artifacts, dense: Metrics, metric: Metric) -> Metrics:
    """Return a row of the table of results; ``dense`` is the dense network's robustness."""
    evaluated, model = artifacts.metrics(row.evaluate), artifacts.metrics(row.model)
    candidates = [artifacts.metrics(name) for name in row.candidates]
    return (
        {"metric": metric.name, "sparsity": _sparsity(row, evaluated), "model": row.model}
        | {name: evaluated[name] for name in (*EVALUATED, *metric.columns) if name in evaluated}
        | _task_measures(evaluated)
        | artifacts.stored_bytes(row.model)
        | {name: model[name] for name in AVERAGED if name in model}
        | _group_measures(evaluated, metric)
        | _compared(artifacts.metrics(row.compare), candidates)
        | _robustness(artifacts.metrics(row.robustness), dense)
        | _shrunk(artifacts.metrics(row.shrink))
    )


def _details(row: Result, artifacts: Artifacts, metric: Metric) -> dict[str, Records]:
    """Return the records of the other tables: candidates, layers, groups, corruptions, filters."""
    evaluated = artifacts.metrics(row.evaluate)
    candidates = enumerate(artifacts.metrics(name) for name in row.candidates)
    layers = evaluated.get("layers", {})
    corruptions = artifacts.metrics(row.robustness).get("by_corruption", {})
    filters = artifacts.metrics(row.shrink).get("filters", {})
    return {
        "candidates": [
            {"candidate": number, "test_score": values["test_score"]}
            for number, values in candidates
            if "test_score" in values
        ],
        "layers": [
            {"layer": layer, "sparsity": values["sparsity"]} for layer, values in layers.items()
        ],
        "groups": _groups(evaluated, metric),
        "corruptions": [
            {"corruption": name, "severity": severity, "accuracy": accuracy}
            for name, accuracies in corruptions.items()
            for severity, accuracy in enumerate(accuracies, start=1)
        ],
        "filters": [{"layer": layer, **counts} for layer, counts in filters.items()],
    }


def _sparsity(row: Result, evaluated: Metrics) -> float:
    """Return the planned sparsity, or the measured one where a method misses it (DST, STR).

    Counts are rounded layer by layer, so a difference of a weight a layer is none.
    """
    measured: float = evaluated.get("sparsity", row.sparsity)
    sizes = [values["weights"] for values in evaluated.get("layers", {}).values()]
    rounding = len(sizes) / sum(sizes) if sizes else 0.0
    return row.sparsity if abs(measured - row.sparsity) <= rounding else measured


def _task_measures(evaluated: Metrics) -> Metrics:
    """Return all numbers and texts of the test split, those of the task included."""
    return {
        name: value
        for name, value in evaluated.items()
        if name.startswith("test_") and isinstance(value, int | float | str)
    }


def _compared(compared: Metrics, candidates: Records) -> Metrics:
    """Return the numbers of a comparison with the candidates, a column each."""
    columns: Metrics = {name: compared[name] for name in COMPARED if name in compared}
    if "included" in columns:
        columns["included"] = len(columns["included"])
    for role in ROLES:
        for split in ("val_score", "test_score"):
            columns[f"{role}_{split}"] = compared.get(role, {}).get(split)
    scores = [candidate["test_score"] for candidate in candidates if "test_score" in candidate]
    if scores and len(scores) == len(candidates):
        columns[BEST_BY_TEST] = max(scores)
    return columns


def _robustness(robust: Metrics, dense: Metrics) -> Metrics:
    if not robust:
        return {}
    return {
        "ood_accuracy_15": robust.get("mean_15"),
        "ood_accuracy_19": robust.get("mean_19"),
        "mce": mean_corruption_error(
            robust.get("by_corruption", {}), dense.get("by_corruption", {})
        ),
        "ood_synthetic": robust.get("synthetic"),
        "ood_about": robust.get("about"),
        "ood_images": robust.get("images"),
    }


def _shrunk(shrunk: Metrics) -> Metrics:
    """Return the size and speed of the network without its pruned filters."""
    if not shrunk:
        return {}
    columns = {
        "parameters_removed": shrunk["parameters"]["removed"],
        "bytes_removed": shrunk["bytes"]["removed"],
        "macs_speedup": shrunk["macs"]["dense"] / shrunk["macs"]["removed"],
    }
    for batch, times in shrunk["latency"].items():
        size = batch.removeprefix("batch_")
        columns |= {f"latency_{k}_ms_{size}": times[f"{k}_ms"] for k in ("masked", "removed")}
        columns[f"measured_speedup_{size}"] = times["speedup"]
    return columns


def _groups(evaluated: Mapping[str, Any], metric: Metric) -> Records:
    """Return score and 95 % interval of every group of every set."""
    return [
        {"split": "test", "set": name, "group": group, "score": values[metric.group_key], **values}
        for name, group_set in evaluated.get("groups", {}).items()
        for group, values in group_set["groups"].items()
    ]


def _group_measures(evaluated: Metrics, metric: Metric) -> Metrics:
    """Return the lowest group score, and each score and the mean of the first small set."""
    scores = [record["score"] for record in _groups(evaluated, metric)]
    measures = {"test_worst_group": min(scores)} if scores else {}
    if "test_macro_accuracy" in evaluated:
        measures["test_macro_accuracy"] = evaluated["test_macro_accuracy"]
    for name, group_set in evaluated.get("groups", {}).items():
        recalls = {group: values[metric.group_key] for group, values in group_set["groups"].items()}
        if name != "class" and len(recalls) <= GROUP_COLUMNS and "test_group_mean" not in measures:
            measures["test_group_mean"] = sum(recalls.values()) / len(recalls)
            measures |= {f"test_recall/{group}": recall for group, recall in recalls.items()}
    return measures
