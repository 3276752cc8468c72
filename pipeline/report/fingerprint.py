"""Fingerprints of a finished run, by which the next run knows that it has nothing to do.

The *report* fingerprint is a hash of the contents of reports/ and of everything they are made from.
The *files* fingerprint adds the time, size and inode of every input and output of the graph. DVC
decides by the same three whether to hash a file again: if both fingerprints are unchanged, DVC
would find nothing to do either. The files fingerprint also has the version of PyTorch and the
environment variables of the stages, about which the driver warns.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from configobj import ConfigObj  # type: ignore[import-untyped]
from platformdirs import site_config_dir, user_config_dir

from pipeline.code_files import main_checkout
from pipeline.errors import UserError
from pipeline.plan.dvc_yaml import dependencies
from pipeline.plan.plan import Plan
from pipeline.run.file_stamps import file_stamps
from pipeline.storage.atomic_files import write_json

SOURCE = Path(__file__).parents[2]
STORE = Path(".dvc/tmp/sms/finished.json")
GRAPH = ("stages/dvc.yaml", "stages/dvc.lock", "stages/provenance.json")
CODE = ("pipeline/**/*.py", "pipeline/report/paper/*", "recipes/*.yaml")
STAGE_ENVIRONMENT = ("CUDA_VISIBLE_DEVICES", "SMS_THREADS", "SMS_GPUS_PER_STAGE")
REPORT_ENVIRONMENT = ("SMS_MLFLOW", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_EXP_NAME")


@dataclass(frozen=True)
class Finished:
    """The fingerprints, SHA-256 in hexadecimal."""

    report: str
    files: str


def read(root: Path) -> Finished | None:
    """Return the fingerprints of the last finished and logged run of ``root``, if there is one."""
    try:
        return Finished(**json.loads((root / STORE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def remember(root: Path, plan: Plan) -> None:
    """Store the fingerprints of the run that has just been finished and logged."""
    now = take(root, plan)
    write_json(root / STORE, {"report": now.report, "files": now.files})


def forget(root: Path) -> None:
    """Remove the fingerprints, so that the next run writes and logs its report."""
    (root / STORE).unlink(missing_ok=True)


def take(root: Path, plan: Plan) -> Finished:
    """Return the present fingerprints of the checkout ``root``.

    The hashes of the artifacts are those of the lock file. Of the libraries only the version of
    PyTorch counts.
    """
    settings = {name: os.environ.get(name) for name in REPORT_ENVIRONMENT}
    parameters = plan.params.model_dump(mode="json")
    logged = (main_checkout(root) / "mlflow.db").exists()
    report = _digest([parameters, settings, logged, _contents(_files(root))])
    used = {path for node in plan.nodes.values() for path in (*dependencies(node), node.out)}
    stages = [version("torch"), [os.environ.get(name) for name in STAGE_ENVIRONMENT]]
    return Finished(report, _digest([report, stages, *_times(root, sorted(used))]))


def sources(root: Path, plan: Plan) -> str:
    """Return a hash of the code, and of time, size and inode of all inputs that no stage writes.

    It is the same at both ends of a run unless an input was edited meanwhile, which a stage, or the
    report, may have read before.
    """
    written = {node.out for node in plan.nodes.values()}
    read = {path for node in plan.nodes.values() for path in dependencies(node)} - written
    return _digest([_contents(_code()), *_stamps(root, sorted(read))])


def _contents(files: Iterable[tuple[str, Path]]) -> list[list[str]]:
    return [[name, hashlib.sha256(file.read_bytes()).hexdigest()] for name, file in files]


def _code() -> Iterator[tuple[str, Path]]:
    code = {file for pattern in CODE for file in SOURCE.glob(pattern) if file.is_file()}
    yield from ((file.relative_to(SOURCE).as_posix(), file) for file in sorted(code))


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of the report and those that it is made from, each with a name."""
    yield from ((name, root / name) for name in GRAPH if (root / name).is_file())
    yield from _code()
    reports = {file for file in (root / "reports").rglob("*") if file.is_file()}
    yield from ((file.relative_to(root).as_posix(), file) for file in sorted(reports))


def _times(root: Path, used: Iterable[str]) -> Iterator[object]:
    """Yield time, size and inode of the files in ``used``, and the times of the cache's folders."""
    yield from _stamps(root, used)
    folders = sorted((_cache(root) / "files" / "md5").glob("*"))  # `dvc gc` changes their times
    yield [(folder.name, folder.stat().st_mtime_ns) for folder in folders]


def _cache(root: Path) -> Path:
    """Return the folder of DVC's cache, that of the last of DVC's configuration files to name one.

    DVC itself (``dvc.config``) is not asked, since its import is slow.

    Raises:
        UserError: one of these files is damaged.
    """
    system = os.environ.get("DVC_SYSTEM_CONFIG_DIR") or site_config_dir("dvc", "iterative")
    user = os.environ.get("DVC_GLOBAL_CONFIG_DIR") or user_config_dir("dvc", "iterative")
    here, cache = root / ".dvc", root / ".dvc" / "cache"
    for file in (
        Path(system, "config"),
        Path(user, "config"),
        here / "config",
        here / "config.local",
    ):
        try:
            section = ConfigObj(str(file)).get("cache", {})
        except (SyntaxError, ValueError) as error:
            raise UserError(f"{file} is no configuration of DVC ({error}): correct it") from error
        if "dir" in section:
            cache = file.parent / Path(section["dir"]).expanduser()
    return cache


def _stamps(root: Path, used: Iterable[str]) -> Iterator[object]:
    """Yield the stamps of each path; the path alone where it cannot be read: its stage says why."""
    for path in used:
        try:
            yield file_stamps(str(root / path))
        except OSError:
            yield path


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
