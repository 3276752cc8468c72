"""The report: a page, its figures, the numbers behind them, and metrics for ``dvc exp show``."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.plan.plan import Plan
from pipeline.report.figures import accuracy, candidates, corruptions, groups, layers, style
from pipeline.report.load import read
from pipeline.report.metrics_json import headline
from pipeline.report.page import page
from pipeline.report.paper import lookup
from pipeline.report.results import KEY, TABLES, Results
from pipeline.report.statistics import summary
from pipeline.report.tables.made_by import with_makers
from pipeline.report.write_studies import write_studies
from pipeline.run.provenance import provenance
from pipeline.storage.atomic_files import write_json

DRAWN = {
    "accuracy": accuracy.draw,
    "candidates": candidates.draw,
    "corruptions": corruptions.draw,
    "groups": groups.draw,
    "layers": layers.draw,
}

ALWAYS = set(TABLES) - {"filters"}  # only networks whose filters were removed have that one


def write(
    plan: Plan, artifacts: Path, folder: Path, without: Collection[str] = ()
) -> dict[str, Any]:
    """Write the report on ``plan`` into ``folder`` and return the content of its metrics.json.

    ``artifacts`` holds what the stages have left; the report says what there is and names what is
    missing, the nodes in ``without`` (those that failed or were skipped) included. Every file is
    written whatever is missing, and equal artifacts give equal bytes.
    """
    plan = lookup.measured(plan, artifacts, without)
    results = read(plan, artifacts, without)
    results.rows = with_makers(results.rows, provenance(artifacts.parent))
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, table in _files(results).items():
        table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    with style.look():
        for name, draw in DRAWN.items():
            style.save(draw(results), folder / "figures" / f"{name}.png")
    (folder / "results.md").write_text(page(results), encoding="utf-8")
    write_studies(plan, artifacts, folder / "studies", without)
    metrics = headline(results)
    write_json(folder / "metrics.json", metrics)
    return metrics


def _files(results: Results) -> dict[str, pd.DataFrame]:
    rows = results.rows
    return {
        "results": rows,
        "results_summary": summary(results),
        "accuracy": rows.dropna(subset=["test_score"])[
            [*KEY, "sparsity", "test_score", *rows.columns.intersection(results.metric.columns)]
        ],
        **{name: table for name, table in results.tables.items() if name in ALWAYS or len(table)},
    }
