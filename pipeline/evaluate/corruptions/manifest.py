"""Manifest of an ImageNet-C folder: its image files by corruption, severity and class.

ROOT/TYPE/SEVERITY/WNID/*.JPEG, or ROOT/GROUP/TYPE/SEVERITY/WNID/*.JPEG as the archives noise,
blur, weather, digital and extra unpack. Classes are matched by the names of their folders; folders
of other classes are ignored.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.data.formats.images import SUFFIXES
from pipeline.data.formats.prefetch import prefetch
from pipeline.errors import UserError
from pipeline.evaluate.corruptions.constants import (
    ARCHIVES,
    NAMES_15,
    NAMES_19,
    OFFICIAL,
    SEVERITIES,
)
from pipeline.events import emit

Files = Sequence[tuple[Path, int]]  # image and label


def corruption_folders(root: Path) -> dict[str, Path]:
    """Return each corruption's folder, relative to ``root``, for all 19 or the main 15.

    Raises:
        UserError: one is missing.
    """
    folders: dict[str, Path] = {}
    for name in NAMES_19:
        candidates = (Path(name), *(Path(archive, name) for archive in ARCHIVES))
        existing = [folder for folder in candidates if (root / folder).is_dir()]
        folders |= {name: existing[0]} if existing else {}
    expected = NAMES_15 if not folders.keys() - set(NAMES_15) else NAMES_19
    missing = [name for name in expected if name not in folders]
    if missing:
        raise UserError(
            f"{root} lacks {', '.join(missing)}: it must hold {root}/TYPE/SEVERITY/CLASS/*.JPEG "
            "for the 15 or all 19 types and the severities 1 to 5 of ImageNet-C, TYPE also in the "
            f"folders {', '.join(ARCHIVES)} as the archives unpack, or CIFAR-C's .npy files "
            f"({OFFICIAL})"
        )
    return folders


def image_files(folder: Path, classes: Sequence[str]) -> Files:
    """Return images and labels of one corruption and severity, sorted by label, then by name.

    Raises:
        UserError: a class has no folder there, or no image.
    """
    files: list[tuple[Path, int]] = []
    for label, name in enumerate(classes):
        try:
            paths = sorted((folder / name).iterdir())
        except OSError:
            raise UserError(
                f"{folder} has no folder {name}, which is a class of the data set: unpack the "
                f"whole archive there ({OFFICIAL})"
            ) from None
        images = [path for path in paths if path.suffix.lower() in SUFFIXES]
        if not images:
            raise UserError(f"{folder / name} holds no image: unpack the whole archive there")
        files += [(path, label) for path in images]
    return files


def hash_names(files: Files) -> str:
    """Return a hash of the files' classes and names."""
    text = "".join(f"{path.parent.name}/{path.name}\n" for path, _ in files)
    return hashlib.sha256(text.encode()).hexdigest()


def list_files(root: Path, classes: Sequence[str]) -> dict[str, Any]:
    """Return the manifest of the set in ``root``, with the cells of a `FolderSet`.

    Raises:
        UserError: a corruption, severity or class is missing, or one has fewer images than others.
    """
    by_corruption = corruption_folders(root)

    def cell(folder: Path) -> dict[str, Any]:
        files = image_files(root / folder, classes)
        size = sum(path.stat().st_size for path, _ in files)
        return {
            "folder": folder.as_posix(),
            "images": len(files),
            "names": hash_names(files),
            "bytes": size,
        }

    # In threads, because a network file system takes about a millisecond for each query.
    folders = [
        folder / str(severity) for folder in by_corruption.values() for severity in SEVERITIES
    ]
    cells: list[dict[str, Any]] = []
    for one in prefetch(cell, folders):
        cells.append(one)
        if one["images"] != cells[0]["images"]:
            raise UserError(
                f"{root / one['folder']} has {one['images']} images of the data's classes, but "
                f"others have {cells[0]['images']}: unpack its archive again ({OFFICIAL})"
            )
        emit(listed=one["folder"], done=len(cells), of=len(folders))
    each = len(SEVERITIES)
    by_name = {name: cells[i * each : (i + 1) * each] for i, name in enumerate(by_corruption)}
    return {"layout": "folders", "root": str(root), "cells": by_name}
