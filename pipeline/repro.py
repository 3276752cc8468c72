"""What `dvc repro` does: plan the graph, run what is missing, write the report, track it all."""

import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pipeline import params
from pipeline.errors import UserError
from pipeline.evaluate.corruptions.constants import OFFICIAL
from pipeline.files import read_json
from pipeline.plan import build, graph
from pipeline.plan.nodes import Plan, Row, artifact
from pipeline.report import metric
from pipeline.report.write import write as write_report
from pipeline.run.driver import execute
from pipeline.run.gpu_jobs import default_gpu_jobs
from pipeline.run.view import View
from pipeline.track.tracker import Tracker

PARAMS, GRAPH, ARTIFACTS, REPORTS = "params.yaml", "stages/dvc.yaml", "artifacts", "reports"


def write_plan(root: Path) -> Plan:
    """Check params.yaml, write the graph that it asks for, and return the plan."""
    experiment = params.load(root / PARAMS)
    sys.stderr.writelines(f"warning: {sentence}\n" for sentence in experiment.warnings())
    plan = build.build(experiment)
    graph.write(plan, root / GRAPH)
    return plan


def repro(root: Path, tracker: Tracker) -> int:
    """Do everything for the checkout at ``root``; return the exit status.

    Stages that fail cost their own results only: the report says what is missing, and the exit
    status is 1.
    """
    (_home(root) / "data").mkdir(exist_ok=True)
    _share(root, "data")
    plan = write_plan(root)
    _share(root, plan.params.data.path or "data")  # where it is absent, `prepare` says of what
    _find(plan, root)
    tracker.open(plan.nodes, plan.params.model_dump(exclude_none=True))
    with View(len(plan.nodes)) as view:
        gpu_jobs = default_gpu_jobs(plan.params.network.name, plan.params.data.size)
        summary = execute(root, listeners=[view, tracker], gpu_jobs=gpu_jobs)
    behind = [*summary.failed, *summary.skipped]  # what they left before is out of date
    write_report(plan, root / ARTIFACTS, root / REPORTS, behind)
    _log_results(plan, root, tracker, behind)
    sys.stdout.write(f"{len(plan.rows)} results in {REPORTS}/results.md\n")
    return 1 if summary.failed else 0


def report(root: Path) -> None:
    """Write the report again from what is in artifacts/."""
    plan = build.build(params.load(root / PARAMS))
    write_report(plan, root / ARTIFACTS, root / REPORTS)


def _log_results(plan: Plan, root: Path, tracker: Tracker, behind: Collection[str]) -> None:
    hashes = {name: own for name, own in _hashes(root).items() if name not in behind}
    if "data" in hashes:
        tracker.dataset(root / artifact("data"), hashes["data"])
    table = pd.read_csv(root / REPORTS / "results.csv")
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    tracker.report(root / REPORTS, [{str(key): row[key] for key in row} for row in rows])
    soup = _best_soup(plan, root, set(hashes))
    if soup is not None:
        row, tags = soup
        # The network without its pruned filters is the same function, and smaller.
        name = row.shrink if row.shrink in hashes else row.model
        model, data = root / artifact(name), root / artifact("data")
        tracker.register(f"sms-{plan.params.recipe}", model, data, hashes[name], tags)


def _best_soup(plan: Plan, root: Path, there: set[str]) -> tuple[Row, dict[str, Any]] | None:
    """Return the last phase's soup with the best validation score, of the first seed.

    It comes as its row of the report and what is to be written beside the registered model.
    """
    soups = [
        row
        for row in plan.rows
        if row.method.startswith("sms_")
        and row.phase == plan.params.phases
        and row.seed == plan.params.seeds[0]
        and row.model in there
    ]
    if not soups:
        return None
    metrics = {row.model: read_json(root / artifact(row.model) / "metrics.json") for row in soups}
    score = f"val_{metric.found(plan, root / ARTIFACTS).name}"
    best = max(soups, key=lambda row: metrics[row.model][score])
    return best, {"method": best.method, "phase": best.phase, **metrics[best.model]}


def _hashes(root: Path) -> dict[str, str]:
    """Return the DVC hash of every artifact that is there, by the name of its stage."""
    lock = root / "stages" / "dvc.lock"
    if not lock.exists():
        return {}
    text = lock.read_text(encoding="utf-8")
    # Ten times as fast as PyYAML's own parser, where PyYAML was built with it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    stages = yaml.load(text, Loader=loader).get("stages", {})  # noqa: S506 - both are safe
    return {
        name: stage["outs"][0]["md5"]
        for name, stage in stages.items()
        if (root / artifact(name)).is_dir()
    }


def _home(root: Path) -> Path:
    """Return the main checkout, also for an experiment that runs in a temporary folder."""
    return Path(os.environ.get("DVC_ROOT") or root)


def _share(root: Path, file: str) -> bool:
    """Let a queued experiment's temporary folder see ``file``; return whether there is one."""
    here, there = root / file, _home(root) / file
    if not here.exists() and there.exists():
        here.parent.mkdir(parents=True, exist_ok=True)
        here.symlink_to(there)
    return here.exists()


def _find(plan: Plan, root: Path) -> None:
    """Share the files that stages of ``plan`` read.

    Raises:
        UserError: one of them does not exist.
    """
    for node in plan.nodes.values():
        for file in (*node.files, *node.unwatched):
            if not _share(root, file):
                wanted = file == plan.params.evaluate.corruptions_path
                raise UserError(
                    f"{PARAMS}: {file} does not exist, but a stage reads it: "
                    f"{f'get it ({OFFICIAL}), ' if wanted else ''}put it there, or correct the path"
                )
