"""Objects of DVC's cache: on the disk before anything names them, and whether they are intact.

DVC takes a read-only object for intact and syncs none. After a loss of power an object may have its
name and no content; the next stage with that output would get the empty file in place of its own.
"""

import hashlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from dvc.stage.cache import (  # type: ignore[import-untyped]
    _can_hash,
    _get_cache_hash,
    _get_stage_hash,
)
from dvc.stage.serialize import to_single_stage_lockfile  # type: ignore[import-untyped]

from pipeline.run.dvc_text import text
from pipeline.storage.atomic_files import atomic_file
from pipeline.storage.durable_files import sync

FOLDER = ".dir"  # the ending of a hash of a folder, whose object lists the folder's files


def objects(store: Any, outs: Iterable[Any]) -> list[Path]:
    """Return the paths of the objects of outputs in the cache ``store``, there or not."""
    kept = [out for out in outs if out.use_cache]
    trees = [out.get_obj() for out in kept if out.is_dir_checksum]
    hashes = [out.hash_info.value for out in kept]
    hashes += [entry.value for tree in trees if tree for _, _, entry in tree]
    return [Path(store.oid_to_path(digest)) for digest in hashes]


def drop_damaged(files: Iterable[Path]) -> None:
    """Remove objects that are not intact, so that DVC adds them anew."""
    for file in files:
        if file.exists() and not intact(file):
            file.unlink()


def sync_objects(files: Iterable[Path]) -> None:
    """Write objects, and their names in the folders that they are in, to the disk."""
    files = list(files)
    sync([*files, *dict.fromkeys(file.parent for file in files)])


def save_run(stage_cache: Any, stage: Any) -> None:
    """Enter a stage in the run cache, as DVC's ``StageCache.save`` does, and sync its entries.

    The lock file alone would not do: artifacts are not synced, and DVC takes those that were lost
    out of the cache by the run cache.
    """
    if _can_hash(stage) and (key := _get_stage_hash(stage)):  # which needs dependencies
        if all(out.use_cache for out in stage.outs):
            entry = to_single_stage_lockfile(stage)
            name = _get_cache_hash(entry)
            if not stage_cache._load_cache(key, name):
                file = Path(stage_cache._get_cache_path(key, name))
                stage_cache.repo.cache.legacy.makedirs(str(file.parent))
                with atomic_file(file) as new:
                    new.write_text(text(entry), encoding="utf-8")
        else:
            stage_cache.save(stage)
        folder = Path(stage_cache._get_cache_dir(key))
        sync([*folder.glob("*"), folder, folder.parent])


def intact(file: Path) -> bool:
    """Return whether an object has the hash that is its name."""
    return md5(file) == file.parent.name + file.name.removesuffix(FOLDER)


def md5(file: Path) -> str:
    """Return the MD5 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
