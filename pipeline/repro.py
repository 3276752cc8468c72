"""What `dvc repro` does: plan the graph, run what is missing, write the report, track it all."""

import os
import sys
from pathlib import Path

from pipeline.config import experiment
from pipeline.errors import UserError
from pipeline.evaluate.corruptions.constants import OFFICIAL
from pipeline.plan import build, dvc_yaml
from pipeline.plan.plan import Plan
from pipeline.report import fingerprint
from pipeline.report.fingerprint import Finished
from pipeline.run.gpu_jobs import default_gpu_jobs
from pipeline.run.progress_view import View
from pipeline.track.tracker import Tracker, tracking

PARAMS, GRAPH, REPORTS, LOGS = "params.yaml", "stages/dvc.yaml", "reports", ".dvc/tmp/sms/logs"


def write_plan(root: Path) -> Plan:
    """Check params.yaml, write the graph that it asks for, and return the plan."""
    params = experiment.load(root / PARAMS)
    sys.stderr.writelines(f"warning: {sentence}\n" for sentence in params.warnings())
    plan = build.build(params)
    dvc_yaml.write(plan, root / GRAPH)
    return plan


def repro(root: Path) -> int:
    """Do everything for the checkout at ``root``; return the exit status.

    Stages that fail cost their own results only: the report says what is missing, and the exit
    status is 1. With nothing to do the report stays as it is, and no run is logged.
    """
    (_home(root) / "data").mkdir(exist_ok=True)
    _share(root, "data")
    plan = write_plan(root)
    _share(root, plan.params.data.path or "data")  # where it is absent, `prepare` says of what
    _find(plan, root)
    before, now = fingerprint.read(root), fingerprint.take(root, plan)
    if now == before:
        with View(len(plan.nodes)) as view:
            for name in plan.nodes:
                view.finished(name, "cached", 0.0)
        sys.stdout.write(_said(plan, len(plan.rows)))
        return 0
    return _run(plan, root, before)


def _run(plan: Plan, root: Path, before: Finished | None) -> int:
    """Run the graph, then report and log, unless all is as ``before``; return the exit status."""
    # DVC, pandas and matplotlib take seconds to load.
    from pipeline.run.driver import execute  # noqa: PLC0415

    there = len(plan.rows)
    with tracking(root) as tracker:
        if before is None or before.report != fingerprint.take(root, plan).report:
            tracker.start()  # MLflow loads in its own process meanwhile
        tracker.open(plan.nodes, plan.params.model_dump(exclude_none=True))
        with View(len(plan.nodes)) as view:
            gpu_jobs = default_gpu_jobs(plan.params.network.name, plan.params.data.size)
            summary = execute(root, listeners=[view, tracker], gpu_jobs=gpu_jobs)
        idle = not (summary.ran or summary.failed)
        if idle and before and before.report == fingerprint.take(root, plan).report:
            tracker.drop()
        else:
            fingerprint.forget(root)
            there = _publish(plan, root, tracker)
    if tracker.complete and not summary.failed:
        fingerprint.remember(root, plan)
    sys.stdout.write(_said(plan, there))
    return 1 if summary.failed else 0


def report(root: Path) -> None:
    """Write the report again from those artifacts that are today's."""
    plan = write_plan(root)
    sys.stdout.write(_said(plan, _publish(plan, root)))


def _publish(plan: Plan, root: Path, tracker: Tracker | None = None) -> int:
    """Write the report and log it with ``tracker``; return how many results it has."""
    from pipeline.report.publish import log_report, write_report  # noqa: PLC0415
    from pipeline.run.up_to_date import current  # noqa: PLC0415

    artifacts = current(root)
    there = write_report(plan, root, artifacts)
    if tracker is not None:
        log_report(plan, root, artifacts, tracker)
    return there


def _said(plan: Plan, there: int) -> str:
    planned, page = len(plan.rows), f"{REPORTS}/results.md"
    if there == planned:
        return f"{planned} results in {page}\n"
    return (
        f"{there} of {planned} results in {page}, which names the stages that have not been run; "
        f"{LOGS} has the output of those that failed\n"
    )


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
