"""Writes the report from the up-to-date artifacts, and logs it and its best soup in MLflow."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.export.card import description
from pipeline.export.facts import read_facts
from pipeline.plan.measurements import export_inputs
from pipeline.plan.plan import Plan, Result, artifact
from pipeline.report.load import metric_of
from pipeline.report.write import write
from pipeline.storage.atomic_files import read_json
from pipeline.track.registration import Registration
from pipeline.track.tracker import Tracker

ARTIFACTS, REPORTS = "artifacts", "reports"


def write_report(plan: Plan, root: Path, current: Mapping[str, str]) -> int:
    """Write reports/ from the artifacts in ``current``; return the number of results."""
    write(plan, root / ARTIFACTS, root / REPORTS, plan.nodes.keys() - current.keys())
    return sum(row.evaluate in current for row in plan.rows)


def log_report(plan: Plan, root: Path, current: Mapping[str, str], tracker: Tracker) -> None:
    """Log data set, table and files of the report, and register its best soup.

    ``current`` has the hashes of the up-to-date artifacts by stage; others are neither logged nor
    registered.
    """
    if "data" in current:
        tracker.dataset(root / artifact("data"), current["data"])
    table = pd.read_csv(root / REPORTS / "results.csv")
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    tracker.report(root / REPORTS, [{str(key): row[key] for key in row} for row in rows])
    soup = best_soup(plan, root, current)
    if soup is not None:
        row, tags = soup
        # Without its pruned filters the network computes the same function and is smaller.
        name = row.shrink if row.shrink and row.shrink in current else row.model
        tracker.register(
            Registration(
                name=f"sms-{plan.params.recipe_name}",
                model=root / artifact(name),
                data=root / artifact("data"),
                digest=current[name],
                tags={key: _text(value) for key, value in tags.items()},
                description=model_card(plan, root, row, current),
                code=plan.params.code,
            )
        )


def best_soup(
    plan: Plan, root: Path, current: Mapping[str, str]
) -> tuple[Result, dict[str, Any]] | None:
    """Return the last phase's soup with the best validation score, of the first seed.

    Returns its row of the report and the tags of the registered model; None without a soup.
    """
    soups = [
        row
        for row in plan.rows
        if row.is_soup
        and row.phase == plan.params.phases
        and row.seed == plan.params.seeds[0]
        and row.model in current
    ]
    if not soups:
        return None
    metrics = {row.model: read_json(root / artifact(row.model) / "metrics.json") for row in soups}
    stale = plan.nodes.keys() - current.keys()
    score = f"val_{metric_of(plan, root / ARTIFACTS, stale).name}"
    best = max(soups, key=lambda row: metrics[row.model][score])
    return best, {"method": best.method, "phase": best.phase, **metrics[best.model]}


def model_card(plan: Plan, root: Path, row: Result, current: Mapping[str, str]) -> str:
    """Return the model card of ``row``, as MLflow shows it, from the artifacts ``current``."""
    inputs = export_inputs(plan, row)
    dense = [inputs["dense"], *inputs["dense_metrics"]]
    facts = read_facts(
        root / inputs["model"],
        root / inputs["data"],
        plan.params.network.name,
        current_folders(root, inputs["metrics"], current),
        current_folders(root, dense, current),
    )
    facts = replace(facts, structure=plan.params.prune.structure)
    if row.shrink and row.shrink in current:
        shrunk = read_json(root / artifact(row.shrink) / "metrics.json")
        facts = replace(facts, small_macs=shrunk["macs"]["removed"])
    return description(facts)


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def current_folders(root: Path, folders: Sequence[str], current: Mapping[str, str]) -> list[Path]:
    """Return those of the artifacts ``folders`` that are up to date."""
    return [root / folder for folder in folders if folder.removeprefix(f"{ARTIFACTS}/") in current]
