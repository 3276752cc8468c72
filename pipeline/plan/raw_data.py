"""A hash over the names and sizes of the files that a data set reads, which DVC does not watch.

The hash is a flag of the stage that reads the files: added, removed or resized files run it again.
A folder with the change time of the last reading is not read again; see docs/benchmarks.md.
"""

import ast
import hashlib
import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pipeline import code_files, registry
from pipeline.errors import UserError
from pipeline.plan.dependencies import ROOT
from pipeline.storage.atomic_files import atomic_file

CACHE = ".dvc/tmp/sms/raw_data"
SMALL = 20_000  # files; up to as many are read each time, for a file that is written again leaves
# its folder's change time as it is
SETTLED = 2e9  # ns; a folder that changed less than this ago may change again at the same time
THREADS = 8  # a network file system takes about a millisecond for each request


class Folder(NamedTuple):
    """A folder: its change time, a hash of its files, their number, and its folders."""

    changed: int  # ns; 0 where it may have changed since
    files: str
    size: int
    folders: list[str]


def listing(name: str, path: str | None) -> str | None:
    """Return the hash of the files that the data set ``name`` reads under ``path``, if any.

    ``READS`` in its module names them, folders or files; without it they are all of ``path``.
    """
    reads = _reads(name)
    if path is None and reads is None:
        return None
    return fingerprint(path or "data", reads)


def folder(name: str, path: str | None) -> str | None:
    """Return the folder of the raw files of the data set ``name``, if it has any."""
    return path if path or _reads(name) is None else "data"


def fingerprint(path: str, reads: tuple[str, ...] | None = None) -> str | None:
    """Return a hash over names and sizes of the files under ``path``, or None without files.

    Hidden files do not count. ``reads`` names the parts of ``path`` that count, by default all.
    """
    home = next((home for home in code_files.checkouts(ROOT) if (home / path).exists()), ROOT)
    hashes = []
    for part in ("",) if reads is None else reads:
        place = home / path / part
        if place.is_dir():
            hashes.append((part, _of_folder(place)))
        elif place.is_file():
            hashes.append((part, str(place.stat().st_size)))
    return _hash(sorted(hashes)) if hashes else None


def _reads(name: str) -> tuple[str, ...] | None:
    """Return the literal ``READS`` of a data set's module, without importing it: torch is slow."""
    node = code_files.definitions(registry.parsed("data", name, "data.name")).get("READS")
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    return None if value is None else tuple(ast.literal_eval(value))


def _of_folder(root: Path) -> str:
    cache = code_files.main_checkout(ROOT) / CACHE / f"{_hash(str(root.resolve()))}.json"
    try:
        folders = _scan(str(root), _remembered(cache))
    except OSError as error:
        raise UserError(f"{root} cannot be read ({error}): correct its permissions") from error
    if sum(folder.size for folder in folders.values()) > SMALL:
        with atomic_file(cache) as temporary:
            temporary.write_text(json.dumps(folders), encoding="utf-8")
    else:
        cache.unlink(missing_ok=True)
    return _hash(sorted((name, folder.files) for name, folder in folders.items() if folder.size))


def _remembered(cache: Path) -> dict[str, Folder]:
    try:
        folders = json.loads(cache.read_text(encoding="utf-8"))
        return {name: Folder(*folder) for name, folder in folders.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _scan(root: str, known: Mapping[str, Folder]) -> dict[str, Folder]:
    """Return every folder under ``root`` that is not hidden, by its path relative to it."""
    folders: dict[str, Folder] = {}
    places: set[tuple[int, int]] = set()  # a link may lead back
    waiting = [""]
    with ThreadPoolExecutor(THREADS) as pool:
        while waiting:
            level = zip(waiting, pool.map(partial(_read, root, known), waiting), strict=True)
            waiting = []
            for name, (place, folder) in level:
                if place not in places:
                    places.add(place)
                    folders[name] = folder
                    waiting += [f"{name}{inside}/" for inside in folder.folders]
    return folders


def _read(root: str, known: Mapping[str, Folder], name: str) -> tuple[tuple[int, int], Folder]:
    """Return the identity and the contents of one folder."""
    path = os.path.join(root, name)  # noqa: PTH118 - a million times
    info = os.stat(path)  # noqa: PTH116
    place, before = (info.st_dev, info.st_ino), known.get(name)
    if before is not None and before.changed == info.st_mtime_ns:
        return place, before
    files, folders = [], []
    with os.scandir(path) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                if entry.is_dir():
                    folders.append(entry.name)
                elif entry.is_file():
                    files.append((entry.name, entry.stat().st_size))
    changed = info.st_mtime_ns if time.time_ns() - info.st_mtime_ns > SETTLED else 0
    return place, Folder(changed, _hash(sorted(files)), len(files), sorted(folders))


def _hash(value: object) -> str:
    return hashlib.sha256(repr(value).encode(errors="surrogateescape")).hexdigest()[:16]
