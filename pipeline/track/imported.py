"""A run of another machine in MLflow, marked as imported."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.track.summary import flatten, headline
from pipeline.track.tracker import location


def log_imported(
    root: Path,
    name: str,
    tags: Mapping[str, str],
    params: Mapping[str, Any],
    report: tuple[Path, Sequence[Mapping[str, Any]]],
    networks: Path | None,
) -> bool:
    """Log a run that another machine did; return whether it is new.

    Args:
        root: the repository, whose MLflow store takes it
        name: of the run
        tags: on the run; ``digest`` tells whether it was logged before
        params: as params.yaml had them there
        report: the folder with the report's files, and the table of results in it
        networks: a folder to keep beside it, if there is one

    """
    _, address, artifacts = location(root)
    os.environ["MLFLOW_TRACKING_URI"] = address
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from pipeline.track.log import Log  # noqa: PLC0415 - seconds, and it reads the address

    log = Log(artifacts)
    same = f"tags.imported = 'true' and tags.digest = '{tags['digest']}'"
    if log.client.search_runs([log.experiment], same, max_results=1):
        return False
    log.clock = time.time_ns() // 1_000_000
    log.open(str(root), dict(flatten(params, ".")))
    folder, rows = report
    log.report(str(folder), rows, headline(rows))
    if networks is not None:
        log.client.log_artifacts(log.parent, str(networks), "networks")
    log.client.set_tag(log.parent, "mlflow.runName", f"{name} (imported)")
    for key, value in {**tags, "imported": "true"}.items():
        log.client.set_tag(log.parent, key, value[:500])
    log.close("FINISHED")
    return True
