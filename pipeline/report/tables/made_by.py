"""The PyTorch and device of each result: two columns of results.csv, and a sentence of the page."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline.report.results import Results

COLUMNS = ["torch", "device"]
UNKNOWN = "unknown"  # run by plain DVC, which keeps no records


def with_makers(rows: pd.DataFrame, records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return ``rows`` with the torch and device of each network; missing results have none.

    ``records`` are those of `pipeline.run.provenance`, by stage.
    """
    measured = rows["test_score"].notna()
    columns = {
        name: rows["model"].map(lambda model, n=name: records.get(model, {}).get(n, UNKNOWN))
        for name in COLUMNS
    }
    return rows.assign(**{name: column.where(measured) for name, column in columns.items()})


def line(results: Results) -> str:
    """Return a sentence that names torch and device; if they differ, with the counts of results."""
    if not set(COLUMNS) <= set(results.rows.columns):
        return ""
    counts = results.rows[COLUMNS].dropna().value_counts(sort=False).sort_index()
    if counts.empty:
        return ""
    makers = [
        "an unknown version of torch"
        if torch == device == UNKNOWN
        else f"torch {torch} on {device}"
        for torch, device in counts.index
    ]
    if len(makers) == 1:
        return f"\nComputed with {makers[0]}.\n"
    parts = [
        f"{maker} ({count} {'result' if count == 1 else 'results'})"
        for maker, count in zip(makers, counts, strict=True)
    ]
    return f"\nComputed with {', '.join(parts)}; results.csv has torch and device of each.\n"
