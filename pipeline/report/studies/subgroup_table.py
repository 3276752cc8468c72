"""The table of the study subgroups: a row per measure, network and seed."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from pipeline.evaluate.intervals import mean_interval, wilson_interval
from pipeline.report.studies.base import Measured, Study

KEY = ["sparsity", "method", "role", "phase", "seed"]
VALUES = ["value", "low", "high"]
COLUMNS = [*KEY, "measure", "group", "n", *VALUES]
ROLES = {"model": "", "best_candidate": ", best candidate", "mean_candidate": ", mean candidate"}
OVERALL = {
    "accuracy": "top-1 (%)",
    "macro_accuracy": "mean of classes (%)",
    "group_mean": "mean of groups (%)",
    "worst_group": "worst group (%)",
}

Records = list[dict[str, Any]]


def tabulate(study: Study) -> pd.DataFrame:
    """Return `COLUMNS`: the value and 95 % interval (over the examples) of every measure.

    Measures begin with their split: test_accuracy, test_macro_accuracy (the mean of the classes),
    test_group_mean (of the groups), test_worst_group, train_accuracy, ... By group they are
    test_recall, train_recall, test_lost and test_gained (the numbers of examples that only the
    dense network, or only this one, classifies correctly) and test_error_change. A soup also has
    rows for the candidate with the highest validation accuracy and the mean of all candidates.
    """
    records = [
        {**measured.key, "role": role, **record}
        for measured in study.points
        for role, records in _roles(measured)
        for record in records
    ]
    rows = pd.DataFrame(records, columns=COLUMNS)
    last = rows.groupby(["sparsity", "method"])["phase"].transform("max")
    return rows[rows["phase"] == last].reset_index(drop=True)


def _roles(measured: Measured) -> Iterator[tuple[str, Records]]:
    """Yield the records of a network, and those of a soup's best and mean candidate."""
    yield "model", list(_measures(measured.nodes.get("shift", {})))
    nodes = [measured.nodes.get(f"candidate{j}", {}) for j in range(len(measured.candidates))]
    scores = [
        candidate["val_score"] for candidate in measured.candidates if "val_score" in candidate
    ]
    if nodes and all(nodes) and len(scores) == len(nodes):
        best = max(range(len(nodes)), key=lambda j: scores[j])
        yield "best_candidate", list(_measures(nodes[best]))
        rows = pd.DataFrame([record for metrics in nodes for record in _measures(metrics)])
        means = rows.groupby(["measure", "group", "n"], sort=False, as_index=False)[VALUES].mean()
        records = means.to_dict("records")
        yield "mean_candidate", [{str(k): v for k, v in record.items()} for record in records]


def _measures(metrics: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a record per measure: its group ("" for all), n, value, low, high."""
    for split in ("test", "train"):
        if split not in metrics:
            continue
        groups, classes = metrics[split]["groups"], metrics[split]["classes"]
        n = sum(group["n"] for group in groups.values())
        accuracy = metrics[f"{split}_score"]
        yield _record(f"{split}_accuracy", "", n, accuracy, wilson_interval(accuracy, n))
        for measure, parts in (("macro_accuracy", classes), ("group_mean", groups)):
            recalls = [part["recall"] for part in parts.values()]
            ends = mean_interval(recalls, [part["n"] for part in parts.values()])
            yield _record(f"{split}_{measure}", "", n, metrics[f"{split}_{measure}"], ends)
        worst = min(groups.values(), key=lambda group: group["recall"])
        ends = (worst["low"], worst["high"])
        yield _record(f"{split}_worst_group", "", n, worst["recall"], ends)
        for name, group in groups.items():
            ends = (group["low"], group["high"])
            yield _record(f"{split}_recall", name, group["n"], group["recall"], ends)
        for name, change in metrics.get(f"{split}_shift", {}).items():
            n = groups[name]["n"]
            for measure in ("lost", "gained"):
                yield _record(f"{split}_{measure}", name, n, change[measure])
            ends = (change["low"], change["high"])
            yield _record(f"{split}_error_change", name, n, change["change"], ends)


def _record(
    measure: str, group: str, n: int, value: float, ends: tuple[float, float] | None = None
) -> dict[str, Any]:
    low, high = ends or (None, None)
    return {"measure": measure, "group": group, "n": n, "value": value, "low": low, "high": high}


def group_sizes(rows: pd.DataFrame, measure: str = "test_recall") -> dict[str, int]:
    """Return the number of examples of each group with ``measure``, the rarest group first."""
    groups = rows[rows["measure"] == measure].drop_duplicates("group").sort_values(["n", "group"])
    return {str(group): int(n) for group, n in zip(groups["group"], groups["n"], strict=True)}


def networks(study: Study, rows: pd.DataFrame) -> list[tuple[float, str, str]]:
    """Return sparsity, method and role of every network: dense first, soups after the others."""
    places = rows[["sparsity", "method", "role"]].drop_duplicates()
    listed = [(float(s), str(m), str(r)) for s, m, r in places.itertuples(index=False)]
    return sorted(listed, key=lambda place: (place[0], place[1] in study.soups, place[1]))
