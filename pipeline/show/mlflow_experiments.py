"""The MLflow experiments of this project, and the database that they are in."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.track.ui_views import VIEWS, tag

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment


def ours(client: "MlflowClient") -> "list[Experiment]":
    """Return the experiments that have the saved views, the newest first."""
    experiments = client.search_experiments(order_by=["creation_time DESC"])
    return [each for each in experiments if all(tag(view) in each.tags for view in VIEWS)]


def missing(home: Path, address: str) -> bool:
    """Return whether ``address`` is an SQLite database without a file, or with an empty one.

    A relative path is relative to ``home``.
    """
    scheme, _, file = address.partition(":///")
    path = home / file
    return scheme == "sqlite" and not (path.is_file() and path.stat().st_size > 0)
