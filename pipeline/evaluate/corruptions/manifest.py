"""What an ImageNet-C folder holds: its image files by corruption, severity and class, listed.

ROOT/TYPE/SEVERITY/WNID/*.JPEG, or ROOT/GROUP/TYPE/SEVERITY/WNID/*.JPEG as the archives noise,
blur, weather, digital and extra unpack. A class is found by the name of its folder, whatever its
label is; folders of classes that the data set lacks are left alone.
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

Files = Sequence[tuple[Path, int]]  # an image and its label


def corruption_folders(root: Path) -> dict[str, Path]:
    """Return the folder of each corruption under ``root``, relative to it; all 19 or the main 15.

    Raises:
        UserError: one is missing.
    """
    found: dict[str, Path] = {}
    for name in NAMES_19:
        around = (Path(name), *(Path(archive, name) for archive in ARCHIVES))
        known = [place for place in around if (root / place).is_dir()]
        found |= {name: known[0]} if known else {}
    wanted = NAMES_15 if not found.keys() - set(NAMES_15) else NAMES_19
    absent = [name for name in wanted if name not in found]
    if absent:
        raise UserError(
            f"{root} lacks {', '.join(absent)}: it must hold {root}/TYPE/SEVERITY/CLASS/*.JPEG for "
            "the 15 or all 19 types and the severities 1 to 5 of ImageNet-C, TYPE also in the "
            f"folders {', '.join(ARCHIVES)} as the archives unpack, or CIFAR-C's .npy files "
            f"({OFFICIAL})"
        )
    return found


def image_files(folder: Path, classes: Sequence[str]) -> Files:
    """Return the images of one corruption and severity and their labels, class by class, by name.

    Raises:
        UserError: a class has no folder there, or no image.
    """
    found: list[tuple[Path, int]] = []
    for label, name in enumerate(classes):
        try:
            inside = sorted((folder / name).iterdir())
        except OSError:
            raise UserError(
                f"{folder} has no folder {name}, which is a class of the data set: unpack the "
                f"whole archive there ({OFFICIAL})"
            ) from None
        images = [path for path in inside if path.suffix.lower() in SUFFIXES]
        if not images:
            raise UserError(f"{folder / name} holds no image: unpack the whole archive there")
        found += [(path, label) for path in images]
    return found


def hash_names(files: Files) -> str:
    """Return a hash of the files' classes and names."""
    text = "".join(f"{path.parent.name}/{path.name}\n" for path, _ in files)
    return hashlib.sha256(text.encode()).hexdigest()


def list_files(root: Path, classes: Sequence[str]) -> dict[str, Any]:
    """Return the names and sizes of the files of the set in ``root``, as `FolderSet` takes them.

    Raises:
        UserError: a corruption, severity or class is missing, or one has fewer images than others.
    """
    found = corruption_folders(root)

    def cell(folder: Path) -> dict[str, Any]:
        files = image_files(root / folder, classes)
        size = sum(path.stat().st_size for path, _ in files)
        place = folder.as_posix()
        return {"folder": place, "images": len(files), "names": hash_names(files), "bytes": size}

    # In threads, since a network's file system answers one question a millisecond.
    folders = [place / str(severity) for place in found.values() for severity in SEVERITIES]
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
    by_name = {name: cells[i * each : (i + 1) * each] for i, name in enumerate(found)}
    return {"layout": "folders", "root": str(root), "cells": by_name}
