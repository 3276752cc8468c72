"""The PyTorch and device that made each result: columns of results.csv, and a line of the page."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline.report.results import Results

COLUMNS = ["torch", "device"]
UNKNOWN = "unknown"  # made by plain DVC, or before there were records


def with_makers(rows: pd.DataFrame, records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return ``rows`` with the torch and device of each network, from `pipeline.run.provenance`.

    Results that are missing have none.
    """
    there = rows["test_score"].notna()
    columns = {
        name: rows["model"].map(lambda model, n=name: records.get(model, {}).get(n, UNKNOWN))
        for name in COLUMNS
    }
    return rows.assign(**{name: column.where(there) for name, column in columns.items()})


def line(results: Results) -> str:
    """Return one sentence about what made the results; the count of each if they differ."""
    if not set(COLUMNS) <= set(results.rows.columns):
        return ""
    counts = results.rows[COLUMNS].dropna().value_counts(sort=False).sort_index()
    if counts.empty:
        return ""
    names = [
        "something unknown" if torch == device == UNKNOWN else f"torch {torch} on {device}"
        for torch, device in counts.index
    ]
    if len(names) == 1:
        return f"\nMade by {names[0]}.\n"
    parts = [f"{name} ({count} results)" for name, count in zip(names, counts, strict=True)]
    return f"\nMade by {', '.join(parts)}; results.csv says which by which.\n"
