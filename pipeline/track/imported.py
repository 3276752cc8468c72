"""Logs a run of another machine in MLflow, with the tag imported."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.track.summary import flatten, results_note
from pipeline.track.tracker import location


def log_imported(
    root: Path,
    name: str,
    tags: Mapping[str, str],
    params: Mapping[str, Any],
    report: tuple[Path, Sequence[Mapping[str, Any]]],
    networks: Path | None,
) -> bool:
    """Log the run of another machine; return False if it was logged before.

    Args:
        root: the repository with the MLflow store.
        name: the name of the run.
        tags: the tags of the run; two runs with the same ``digest`` are the same run.
        params: the parameters of the run, nested as in params.yaml.
        report: the folder with the report's files, and its table of results.
        networks: a folder of networks to log as artifacts, or None.

    """
    _, address, artifacts = location(root)
    os.environ["MLFLOW_TRACKING_URI"] = address
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from pipeline.track.log import Log  # noqa: PLC0415 - seconds, and it reads the address

    log = Log(artifacts)
    same_run = f"tags.imported = 'true' and tags.digest = '{tags['digest']}'"
    if log.client.search_runs([log.experiment], same_run, max_results=1):
        return False
    log.clock = time.time_ns() // 1_000_000
    log.open(str(root), dict(flatten(params, ".")))
    folder, rows = report
    log.report(str(folder), rows, results_note(rows))
    if networks is not None:
        log.client.log_artifacts(log.parent, str(networks), "networks")
    log.client.set_tag(log.parent, "mlflow.runName", f"{name} (imported)")
    for key, value in {**tags, "imported": "true"}.items():
        log.client.set_tag(log.parent, key, value[:500])
    log.close("FINISHED")
    return True
