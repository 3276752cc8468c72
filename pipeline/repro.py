"""The steps of `dvc repro`: plan, run the missing stages, write the report, log to MLflow."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pipeline import code_files
from pipeline.code_files import main_checkout
from pipeline.config import experiment
from pipeline.errors import UserError
from pipeline.evaluate.corruptions.constants import OFFICIAL
from pipeline.export.selection import all_formats, check_installed, select
from pipeline.plan import build, dvc_yaml
from pipeline.plan.dependencies import closure
from pipeline.plan.plan import Plan
from pipeline.report import fingerprint
from pipeline.report.fingerprint import Finished
from pipeline.run.machine import default_gpu_jobs
from pipeline.run.progress_view import View
from pipeline.run.run_lock import run_lock
from pipeline.storage import disk_space
from pipeline.storage.durable_files import remove_leftovers
from pipeline.track.tracker import Tracker, tracking

PARAMS, GRAPH, REPORTS, LOGS = "params.yaml", "stages/dvc.yaml", "reports", ".dvc/tmp/sms/logs"


def write_plan(root: Path) -> Plan:
    """Check params.yaml, write its graph to stages/dvc.yaml, and return the plan.

    Raises:
        UserError: params.yaml is wrong, or a run of another graph is at work.
    """
    plan = _plan(root)
    if not dvc_yaml.is_written(plan, root / GRAPH):
        with run_lock(root):
            dvc_yaml.write(plan, root / GRAPH)
    return plan


def _plan(root: Path) -> Plan:
    params = experiment.load(root / PARAMS)
    sys.stderr.writelines(f"warning: {sentence}\n" for sentence in params.warnings())
    return build.build(params)


def repro(root: Path) -> int:
    """Run all steps for the checkout at ``root``; return the exit status.

    Where stages fail, the report names the missing results, and the exit status is 1. With nothing
    to do the report stays as it is, and no run is logged.

    Raises:
        UserError: another run is at work here, params.yaml or a file that it names is wrong, or a
            disk is full.
    """
    with run_lock(root):
        return _repro(root)


def _repro(root: Path) -> int:
    for folder in ("stages", REPORTS, ".dvc/tmp", ".dvc/tmp/sms"):
        remove_leftovers(root / folder)
    _make_data(main_checkout(root) / "data")
    _share(root, "data")
    plan = _plan(root)
    dvc_yaml.write(plan, root / GRAPH)
    _share(root, plan.params.data.path or "data")  # the stage `data` reports missing files
    _share_files(plan, root)
    last, now = fingerprint.read(root), fingerprint.take(root, plan)
    if now == last:
        with View(len(plan.nodes)) as view:
            for name in plan.nodes:
                view.finished(name, "cached", 0.0)
        sys.stdout.write(_last_line(plan, len(plan.rows)))
        return 0
    return _run(plan, root, last, now)


def _run(plan: Plan, root: Path, last: Finished | None, now: Finished) -> int:
    """Run the graph; report and log, unless the report of ``last`` holds; return the exit status.

    ``last`` are the fingerprints of the last finished run, ``now`` those at the start of this one,
    which are stored if every stage is up to date and no input was edited meanwhile.
    """
    # DVC, pandas and matplotlib take seconds to load.
    from pipeline.run.driver import execute  # noqa: PLC0415
    from pipeline.run.dvc_graph import up_to_date  # noqa: PLC0415

    sources = fingerprint.sources(root, plan)
    with tracking(root) as tracker:
        if last is None or last.report != now.report:
            tracker.start()  # MLflow loads in its own process meanwhile
        tracker.open(plan.nodes, plan.params.model_dump(exclude_none=True))
        with View(len(plan.nodes)) as view:
            gpu_jobs = default_gpu_jobs(plan.params.network.name, plan.params.data.size)
            summary = execute(root, listeners=[view, tracker], gpu_jobs=gpu_jobs)
        nothing_ran = not (summary.ran or summary.failed)
        if nothing_ran and last and last.report == fingerprint.take(root, plan).report:
            tracker.drop()
            results, all_current = len(plan.rows), True
        else:
            fingerprint.forget(root)
            artifacts = up_to_date(root)
            results = _publish(plan, root, artifacts, tracker)
            all_current = artifacts.keys() >= plan.nodes.keys()
    edited = sources != fingerprint.sources(root, plan)
    if all_current and not edited and not summary.failed and tracker.complete:
        fingerprint.remember(root, plan)
    sys.stdout.write(_last_line(plan, results))
    return 1 if summary.failed else 0


def report(root: Path) -> None:
    """Write the report again from the artifacts that are up to date."""
    from pipeline.run.dvc_graph import up_to_date  # noqa: PLC0415

    plan = write_plan(root)
    sys.stdout.write(_last_line(plan, _publish(plan, root, up_to_date(root))))


def export(root: Path, name: str | None, formats: Sequence[str], out: Path) -> None:
    """Export an existing network of the graph, or of a folder; by default the best final soup.

    Raises:
        UserError: there is no such network, or it cannot be exported (pipeline/export/write.py).
    """
    try:
        done = _export(root, name, formats, out)
    except OSError as error:
        # ``out``, a folder above it or one beside it could not be made; other files are artifacts'
        cannot_make_out = error.filename and out.is_relative_to(Path(error.filename).parent)
        if not cannot_make_out or disk_space.shortage(error):
            raise
        raise UserError(f"--out {out} cannot be written ({error.strerror}): name another") from None
    sys.stdout.write(done)


def _export(root: Path, name: str | None, formats: Sequence[str], out: Path) -> str:
    """Export a network; return the last line. The graph of params.yaml is not written."""
    plan = _plan(root)
    settings = plan.params
    named = formats or settings.export
    formats = select(named or all_formats(settings.task), settings.task)
    check_installed(formats)
    # DVC and PyTorch take seconds to load.
    from pipeline.export.folder import check_replaceable  # noqa: PLC0415
    from pipeline.export.write import export as write  # noqa: PLC0415
    from pipeline.report.export_inputs import inputs_of  # noqa: PLC0415
    from pipeline.run.dvc_graph import up_to_date  # noqa: PLC0415

    check_replaceable(out)
    code_files.allow(settings.code)
    inputs = inputs_of(plan, root, up_to_date(root, dvc_yaml.render(plan)), name)
    written = write(inputs, formats, out, optional=() if named else ("sparse",))
    return f"{inputs.model.name} as {', '.join(written)} in {out}\n"


def _publish(
    plan: Plan, root: Path, artifacts: Mapping[str, str], tracker: Tracker | None = None
) -> int:
    """Write the report on ``artifacts``, log it with ``tracker``; return the number of results."""
    from pipeline.report.publish import log_report, write_report  # noqa: PLC0415

    results = write_report(plan, root, artifacts)
    if tracker is not None:
        log_report(plan, root, artifacts, tracker)
    return results


def _last_line(plan: Plan, results: int) -> str:
    planned, page = len(plan.rows), f"{REPORTS}/results.md"
    if results == planned:
        return f"{planned} results in {page}\n"
    return (
        f"{results} of {planned} results in {page}, which names the stages that have not been run; "
        f"{LOGS} has the output of those that failed\n"
    )


def _make_data(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError:  # a file, or a link to one or to nothing
        raise UserError(
            f"{folder} is no folder ({folder.resolve()}): mount its disk, or remove it"
        ) from None


def _share(root: Path, file: str) -> bool:
    """Link ``file`` of the main checkout into a queued experiment's copy; say whether it exists."""
    link, target = root / file, main_checkout(root) / file
    if not link.exists() and target.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)  # one to a place that is gone
        with suppress(FileExistsError):  # beside another experiment of the queue
            link.symlink_to(target)
    return link.exists()


def _share_files(plan: Plan, root: Path) -> None:
    """Link the files outside the graph that stages of ``plan`` read.

    Raises:
        UserError: one of them does not exist.
    """
    code = {module for node in plan.nodes.values() for module in node.modules}
    for file in closure(*sorted(module for module in code if module.endswith(".py"))):
        _share(root, file)
    for node in plan.nodes.values():
        for file in (*node.files, *node.unwatched):
            if not _share(root, file):
                corruptions = file == plan.params.evaluate.corruptions_path
                raise UserError(
                    f"{PARAMS}: {file} does not exist, but a stage reads it: "
                    f"{f'get it ({OFFICIAL}), ' if corruptions else ''}put it there, or correct "
                    "the path"
                )
