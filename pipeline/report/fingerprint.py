"""A fingerprint of the report and all that it is made from, to write and log nothing twice."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.files import replacing

SOURCE = Path(__file__).parents[2]
STORE = Path(".dvc/tmp/sms/report.sha256")
GRAPH = ("stages/dvc.yaml", "stages/dvc.lock")
CODE = ("pipeline/**/*.py", "pipeline/report/paper/*", "recipes/*.yaml")
ENVIRONMENT = ("SMS_MLFLOW", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_EXP_NAME")


def unchanged(root: Path, params: Mapping[str, Any]) -> bool:
    """Return whether the report is there as it was written, and would be written so again."""
    store = root / STORE
    return store.is_file() and store.read_text(encoding="utf-8") == fingerprint(root, params)


def remember(root: Path, params: Mapping[str, Any]) -> None:
    """Store the fingerprint of a report that has been written and logged."""
    with replacing(root / STORE) as file:
        file.write_text(fingerprint(root, params), encoding="utf-8")


def forget(root: Path) -> None:
    """Have the next run write and log its report, whatever has changed."""
    (root / STORE).unlink(missing_ok=True)


def fingerprint(root: Path, params: Mapping[str, Any]) -> str:
    """Return the SHA-256 of parameters, graph, lock file, code, reports/ and the MLflow store.

    The lock file has the hash of every artifact. Libraries do not count.
    """
    total = hashlib.sha256()
    home = Path(os.environ.get("DVC_ROOT") or root)
    settings = {name: os.environ.get(name) for name in ENVIRONMENT}
    settings["mlflow.db"] = str((home / "mlflow.db").exists())
    total.update(json.dumps([settings, params], sort_keys=True, default=str).encode())
    for name, file in _files(root):
        total.update(f"{name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield all files that count, by the names that they go by."""
    for name in GRAPH:
        if (root / name).is_file():
            yield name, root / name
    code = sorted({file for pattern in CODE for file in SOURCE.glob(pattern) if file.is_file()})
    reports = sorted(file for file in (root / "reports").rglob("*") if file.is_file())
    yield from ((file.relative_to(SOURCE).as_posix(), file) for file in code)
    yield from ((file.relative_to(root).as_posix(), file) for file in reports)
