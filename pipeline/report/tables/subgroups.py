"""What the study of groups has measured, as one tidy table: a row a measure, network and seed."""

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


def tabulate(study: Study) -> pd.DataFrame:
    """Return `COLUMNS`: every measure's value with the 95 % interval that its examples leave.

    Measures are named with their split: test_accuracy, test_macro_accuracy (the mean of the
    classes), test_group_mean (of the groups), test_worst_group, train_accuracy, ...; by group
    test_recall, train_recall, test_lost and test_gained (how many examples only the dense
    network, or only this one, has right) and test_error_change. Of a soup there are also the
    candidate with the highest validation accuracy and the mean of all candidates.
    """
    records = [
        {**measured.point.values, "method": measured.point.method, "role": role}
        | {"phase": measured.point.phase, "seed": measured.point.seed, **record}
        for measured in study.points
        for role, found in _roles(measured)
        for record in found
    ]
    rows = pd.DataFrame(records, columns=COLUMNS)
    last = rows.groupby(["sparsity", "method"])["phase"].transform("max")
    return rows[rows["phase"] == last].reset_index(drop=True)


def _roles(measured: Measured) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    yield "model", list(_measures(measured.nodes.get("shift", {})))
    nodes = [measured.nodes.get(f"candidate{j}", {}) for j in range(len(measured.candidates))]
    scores = [one["val_score"] for one in measured.candidates if "val_score" in one]
    if nodes and all(nodes) and len(scores) == len(nodes):
        best = max(range(len(nodes)), key=lambda j: scores[j])
        yield "best_candidate", list(_measures(nodes[best]))
        every = pd.DataFrame([record for one in nodes for record in _measures(one)])
        means = every.groupby(["measure", "group", "n"], sort=False, as_index=False)[VALUES].mean()
        found = means.to_dict("records")
        yield "mean_candidate", [{str(k): v for k, v in record.items()} for record in found]


def _measures(metrics: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the records of one network: measure, group ("" of them all), n, value, low, high."""
    for part in ("test", "train"):
        if part not in metrics:
            continue
        groups, classes = metrics[part]["groups"], metrics[part]["classes"]
        n = sum(own["n"] for own in groups.values())
        value = metrics[f"{part}_score"]
        yield _record(f"{part}_accuracy", "", n, value, wilson_interval(value, n))
        for measure, parts in (("macro_accuracy", classes), ("group_mean", groups)):
            shares = [own["recall"] for own in parts.values()]
            ends = mean_interval(shares, [own["n"] for own in parts.values()])
            yield _record(f"{part}_{measure}", "", n, metrics[f"{part}_{measure}"], ends)
        worst = min(groups.values(), key=lambda own: own["recall"])
        yield _record(f"{part}_worst_group", "", n, worst["recall"], (worst["low"], worst["high"]))
        for name, own in groups.items():
            ends = (own["low"], own["high"])
            yield _record(f"{part}_recall", name, own["n"], own["recall"], ends)
        for name, own in metrics.get(f"{part}_shift", {}).items():
            own_n = groups[name]["n"]
            for measure in ("lost", "gained"):
                yield _record(f"{part}_{measure}", name, own_n, own[measure])
            ends = (own["low"], own["high"])
            yield _record(f"{part}_error_change", name, own_n, own["change"], ends)


def _record(
    measure: str, group: str, n: int, value: float, ends: tuple[float, float] | None = None
) -> dict[str, Any]:
    low, high = ends or (None, None)
    return {"measure": measure, "group": group, "n": n, "value": value, "low": low, "high": high}


def order(rows: pd.DataFrame) -> dict[str, int]:
    """Return the groups and how many test examples each has, the rarest first."""
    own = rows[rows["measure"] == "test_recall"].drop_duplicates("group")
    found = own.sort_values(["n", "group"])
    return {str(group): int(n) for group, n in zip(found["group"], found["n"], strict=True)}


def places(study: Study, rows: pd.DataFrame) -> list[tuple[float, str, str]]:
    """Return sparsity, method and role of every network: dense first, soups after the others."""
    found = rows[["sparsity", "method", "role"]].drop_duplicates()
    listed = [(float(s), str(m), str(r)) for s, m, r in found.itertuples(index=False)]
    return sorted(listed, key=lambda at: (at[0], at[1] in study.soups, at[1]))
