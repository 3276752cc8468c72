"""Hashes every cached object and artifact again: ``python -m pipeline verify``.

DVC takes a read-only object of its cache for intact, and a file of known time, size and inode for
unchanged. So neither a flipped bit nor a loss of power that emptied a file need be noticed.
"""

import json
import shlex
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipeline.errors import UserError
from pipeline.run.dvc_cache import FOLDER, intact, md5

LOCK, DATABASE = "stages/dvc.lock", "mlflow.db"
RUNNING = ".dvc/tmp/rwlock"  # DVC's list of the files in use
OBJECTS = "files/md5"
DAMAGE = (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError)


class Broken(NamedTuple):
    """What is wrong, and the command that removes it; empty where `dvc repro` alone mends it."""

    sentence: str
    command: str = ""


def verify(root: Path) -> int:
    """Print what is broken and what to do about it; return the exit status, 1 where anything is."""
    cache = _cache(root)
    broken = [
        *_running(root),
        *_lock(root),
        *_objects(root, cache),
        *_artifacts(root, cache),
        *_database(root),
    ]
    commands = dict.fromkeys(one.command for one in broken if one.command)
    for one in broken:
        sys.stdout.write(f"{one.sentence}\n")
    if broken:
        remove = "remove what is broken:\n" + "".join(f"    {line}\n" for line in commands)
        again = (
            "run `dvc repro`, which makes again what is missing, and `python -m pipeline verify`\n"
        )
        sys.stdout.write(f"{remove}then {again}" if commands else again)
        return 1
    if (root / LOCK).exists():
        sys.stdout.write(f"all objects of {cache} and all artifacts that {LOCK} names are intact\n")
    else:
        sys.stdout.write(
            f"all objects of {cache} are intact; no artifact was checked, since {LOCK}, which "
            "`dvc repro` writes, is missing\n"
        )
    return 0


def _cache(root: Path) -> Path:
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]  # noqa: PLC0415 - slow
    from dvc.repo import Repo  # type: ignore[import-untyped]  # noqa: PLC0415

    from pipeline.run.dvc_errors import sentence  # noqa: PLC0415

    try:
        with closing(Repo(str(root))) as repo:
            return Path(repo.cache.local_cache_dir)
    except DvcException as error:
        raise UserError(sentence(error)) from error


def _running(root: Path) -> Iterator[Broken]:
    """Check DVC's list of the files in use, which DVC writes without syncing."""
    file = root / RUNNING
    try:
        json.loads(file.read_text(encoding="utf-8") if file.exists() else "{}")
    except ValueError:
        yield Broken(f"{RUNNING} is damaged", f"rm -f {RUNNING}")


def _lock(root: Path) -> Iterator[Broken]:
    """Check that both lock files are such, and that stages agree on the artifacts between them."""
    for name in (LOCK, "dvc.lock"):
        if (root / name).exists() and not _is_lock(root / name):
            yield Broken(f"{name} is damaged", f"rm -f {name}")
    try:
        stages = _stages(root)
        outs = {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}
        deps = [dep for stage in stages.values() for dep in stage.get("deps", [])]
        if any(outs.get(dep["path"], dep["md5"]) != dep["md5"] for dep in deps):
            yield Broken(f"{LOCK} has two hashes of one artifact: `dvc repro` corrects it")
    except DAMAGE:
        return  # said above


def _is_lock(file: Path) -> bool:
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA  # type: ignore[import-untyped]  # noqa: PLC0415
    from voluptuous import Invalid  # noqa: PLC0415

    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(file.read_bytes()))
    except (Invalid, *DAMAGE):
        return False
    return True


def _stages(root: Path) -> Mapping[str, Any]:
    file = root / LOCK
    content = yaml.safe_load(file.read_bytes()) if file.exists() else {}
    stages: Mapping[str, Any] = content.get("stages") or {}
    return stages


def _objects(root: Path, cache: Path) -> Iterator[Broken]:
    """Check the objects of the cache, whose names are their hashes."""
    for file in sorted((cache / OBJECTS).glob("??/*")):
        if len(file.name.removesuffix(FOLDER)) == 30 and not intact(file):
            yield _damaged(root, file)


def _artifacts(root: Path, cache: Path) -> Iterator[Broken]:
    """Check the artifacts of the lock file, and that the cache has them."""
    try:
        outs = [out for stage in _stages(root).values() for out in stage["outs"]]
        named = [(root / "stages" / ".." / out["path"], out) for out in outs]
    except DAMAGE:
        return  # `_lock` has said it
    for path, out in named:
        files = _files(cache, str(out["md5"]))
        if files is None:
            yield Broken(f"{out['path']}: the cache lacks its list of files: `dvc repro` mends it")
            continue
        have = {path / name: digest for name, digest in files.items() if (path / name).exists()}
        if len(have) < len(files):
            yield Broken(f"{out['path']} lacks files: `dvc repro` mends it")
        for file, digest in have.items():
            if md5(file) != digest:
                yield _damaged(root, file)
            if not _object(cache, digest).exists():
                yield Broken(f"the cache lacks {digest}, of {out['path']}", _remove(root, path))
        size = sum(file.stat().st_size for file in have)
        if len(have) == len(files) and (size, len(files)) != (out["size"], out["nfiles"]):
            yield Broken(f"{LOCK} has a wrong size for {out['path']}", f"rm -f {LOCK}")


def _files(cache: Path, digest: str) -> dict[str, str] | None:
    """Return the hashes of the files of an output; None where the cache does not tell."""
    if not digest.endswith(FOLDER):
        return {"": digest}
    try:
        entries = json.loads(_object(cache, digest).read_bytes())
        return {entry["relpath"]: entry["md5"] for entry in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _database(root: Path) -> Iterator[Broken]:
    """Check the structure of MLflow's database; SQLite has no checksums of the values in it.

    It is opened for writing: SQLite takes back what a killed writer had not finished.
    """
    file = root / DATABASE
    if not file.exists():
        return
    try:
        with closing(sqlite3.connect(file)) as database:
            sound = database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    except sqlite3.OperationalError as error:  # it is locked, or not ours to read
        yield Broken(f"{DATABASE} cannot be checked: {error}")
        return
    except sqlite3.DatabaseError:
        sound = False
    if not sound:
        yield Broken(
            f"{DATABASE} is damaged; the next run logs to a new one, and "
            f"`sqlite3 {DATABASE}.damaged .recover` shows what is left of the runs in this one",
            f"mv {DATABASE} {DATABASE}.damaged",
        )


def _object(cache: Path, digest: str) -> Path:
    return cache / OBJECTS / digest[:2] / digest[2:]


def _damaged(root: Path, file: Path) -> Broken:
    return Broken(f"{_relative(root, file)} is damaged", _remove(root, file))


def _remove(root: Path, path: Path) -> str:
    return f"rm -rf {shlex.quote(_relative(root, path))}"


def _relative(root: Path, path: Path) -> str:
    path, root = path.parent.resolve() / path.name, root.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
