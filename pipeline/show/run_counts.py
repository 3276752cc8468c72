"""Stages that ran and that were cached in each experiment, from its run in MLflow."""

import os
from pathlib import Path

from pipeline.show.dvc_experiments import Counts
from pipeline.show.mlflow_experiments import missing, ours
from pipeline.track.tracker import location

MOST = 5000  # runs that are read, the newest


def run_counts(root: Path) -> dict[tuple[str, str], Counts]:
    """Return the counts of each experiment's newest run by its baseline and name.

    Without a database there are none. MLflow's exceptions are those of its client.
    """
    home, address, _ = location(root)
    if missing(home, address):
        return {}  # the client would create it
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    # Imported here: MLflow takes seconds to load.
    from mlflow import MlflowClient  # noqa: PLC0415

    client = MlflowClient(address)
    identifiers = [experiment.experiment_id for experiment in ours(client)]
    counts: dict[tuple[str, str], Counts] = {}
    for run in client.search_runs(identifiers, "tags.kind = 'graph'", max_results=MOST):
        tags, metrics = run.data.tags, run.data.metrics
        key = tags.get("dvc.baseline", ""), tags.get("dvc.experiment", "")
        if all(key) and "stages/ran" in metrics:  # newest first
            counts.setdefault(key, (int(metrics["stages/ran"]), int(metrics["stages/cached"])))
    return counts
