"""Converts nested values to MLflow's flat keys, and rows of results to its metrics."""

import re
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

Point = tuple[str, int, float]  # key, step, value


def flatten(
    values: Mapping[str, Any], separator: str, prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield every leaf of nested dictionaries under its joined key; lists are leaves."""
    for key, value in values.items():
        name = f"{prefix}{separator}{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from flatten(value, separator, name)
        else:
            yield name, value


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether ``value`` is a number and no boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def clean(key: str) -> str:
    """Replace the characters of ``key`` that MLflow refuses."""
    return re.sub(r"[^\w\-. :/]", "_", key)


def points(metrics: Mapping[str, Any]) -> list[Point]:
    """Return the numbers of a metrics file, and those of the tables in it as ``<table>/<key>``.

    A list in a table, such as the accuracies of a corruption by severity, has the steps 1, 2, ...
    Tables nested deeper (layers, groups) are left out: the report has them.
    """
    values: list[Point] = []
    for name, value in metrics.items():
        for key, entry in value.items() if isinstance(value, Mapping) else [("", value)]:
            listed = entry if key and isinstance(entry, list) else [entry]
            start = 1 if listed is entry else 0
            values += [
                (clean(f"{name}/{key}" if key else name), step, float(number))
                for step, number in enumerate(listed, start)
                if is_number(number)
            ]
    return values


def curves(history: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Return the numbers of per-epoch records as ``epoch/<key>`` over the epoch.

    Without the prefix the accuracy after an epoch would have the name of the model's final one,
    which is measured after the re-estimation of the BatchNorm statistics.
    """
    return [
        (clean(f"epoch/{key}"), record["epoch"], float(value))
        for record in history
        if isinstance(record.get("epoch"), int)
        for key, value in record.items()
        if key not in {"epoch", "epochs"} and is_number(value)
    ]


def averages(rows: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Return the mean and, from two seeds on, the sample standard deviation over the seeds.

    Each number of a row becomes ``<number>/<method>`` at the step of the row's phase, so that the
    UI plots the methods over the phases.
    """
    groups: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for row in rows:
        for key, value in row.items():
            if key not in {"method", "phase", "seed"} and is_number(value):
                groups[key, str(row["method"]), int(row["phase"])].append(float(value))
    metrics: list[Point] = []
    for (key, method, phase), values in groups.items():
        metrics.append((clean(f"{key}/{method}"), phase, statistics.fmean(values)))
        if len(values) > 1:
            metrics.append((clean(f"{key}_std/{method}"), phase, statistics.stdev(values)))
    return metrics


def results_note(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the note of a run: a Markdown table of the last phase, means over the seeds."""
    if not rows:
        return ""
    last = max(int(row["phase"]) for row in rows)
    shown = [row for row in rows if row["phase"] == last or row["method"] == "dense"]
    values = {key: value for key, _, value in averages(shown) if "_std/" not in key}
    methods = list(dict.fromkeys(clean(str(row["method"])) for row in shown))
    columns = {
        "sparsity": "sparsity",
        f"test {rows[0].get('metric', 'score')}".replace("_", " "): "test_score",
        "accuracy on corrupted images": "ood_accuracy_15",
        "worst group": "test_worst_group",
    }
    known = {
        title: key
        for title, key in columns.items()
        if any(f"{key}/{method}" in values for method in methods)
    }
    lines = [" | ".join(["method", *known]), " | ".join(["---", *("---:" for _ in known)])]
    for method in methods:
        cells = [values.get(f"{key}/{method}") for key in known.values()]
        texts = ["" if cell is None else f"{100 * cell:.2f} %" for cell in cells]
        lines.append(" | ".join([method, *texts]))
    return f"Results of phase {last}, means over the seeds:\n\n" + "\n".join(
        f"| {line} |" for line in lines
    )
