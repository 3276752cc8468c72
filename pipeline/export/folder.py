"""The folder of an export: its own files are replaced, and others are never touched."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.stagekit.cli import atomic_folder
from pipeline.storage.atomic_files import write_json

CONFIG, CARD = "config.json", "README.md"
WRITER = "sparse-model-soups"
KEPT = {".git", ".gitattributes"}  # of a clone from a model hub


def write_config(folder: Path, settings: dict[str, Any]) -> None:
    """Write `CONFIG`: the settings, and the names of the files of the export."""
    files = {CONFIG, CARD, *(file.name for file in folder.iterdir())}
    write_json(folder / CONFIG, {"writer": WRITER, "files": sorted(files), **settings})


def check_replaceable(out: Path) -> None:
    """Check that ``out`` is absent or empty, or holds an export; `KEPT` may be there too.

    Raises:
        UserError: it is a file, or has a file that no export wrote there.
    """
    if not out.exists():
        return
    entries = list(out.iterdir()) if out.is_dir() else [out]
    others = sorted(entry for entry in entries if entry.name not in KEPT)
    if not others:
        return
    config = _config(out)
    if config is None:
        raise UserError(
            f"{out} exists and is no export, so it is not replaced: name another folder as --out."
        )
    named = config.get("files")
    own = [CONFIG, CARD, *(named if isinstance(named, list) else [])]
    for entry in others:
        if entry.name not in own or not entry.is_file():
            raise UserError(
                f"{out} has {entry.name}, which is no file of the export there, so nothing is "
                "replaced: move it away, or name another folder as --out."
            )


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Yield an empty folder; its files replace those of ``out`` when the block ends.

    A folder without `KEPT` is replaced as a whole. In one with them the files are replaced one by
    one, each as a whole, and those that are not written again are removed; `CONFIG` names all files
    at any time, so that an interrupted replacement can be repeated.

    Raises:
        UserError: `check_replaceable`, before or after the block.
    """
    check_replaceable(out)
    if not any((out / name).exists() for name in KEPT):
        with atomic_folder(out) as folder:
            yield folder
            check_replaceable(out)
        return
    out = out.resolve()
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        yield Path(folder)
        check_replaceable(out)
        _replace_files(Path(folder), out)


def _replace_files(new: Path, out: Path) -> None:
    names = {file.name for file in new.iterdir()}
    old = {file.name for file in out.iterdir()} - KEPT - names
    write_json(out / CONFIG, {"writer": WRITER, "files": sorted(names | old)})
    for name in names - {CONFIG}:
        os.replace(new / name, out / name)  # noqa: PTH105 - atomic
    for name in old:
        (out / name).unlink()
    os.replace(new / CONFIG, out / CONFIG)  # noqa: PTH105 - atomic


def _config(folder: Path) -> dict[str, Any] | None:
    """Return the settings of the export in ``folder``, or None if there is none."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return config if isinstance(config, dict) and config.get("writer") == WRITER else None
