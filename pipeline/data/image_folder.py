"""Image folder, for your own images: ROOT/train/CLASS/*.jpg and ROOT/test/CLASS/*.jpg.

Images in folders of a class's folder belong to that class too, as for torchvision's ImageFolder.
ROOT/val/CLASS, if present, is the validation set. ROOT/groups.csv, if present, assigns the test
images to groups whose recall is reported: its first column ``filename`` is a path below ROOT
(test/cat/001.jpg), each further column is a group set and its cells are group names.
"""

import csv
import os
from pathlib import Path

import torch

from pipeline.data.base import Groups, RawData, Split
from pipeline.data.formats.images import SUFFIXES, load_images
from pipeline.errors import UserError

DEFAULT_SIZE = 32


def read(root: Path | None, size: int | None) -> RawData:
    """Return the images under ``root`` as RGB squares with ``size`` (32) pixels a side.

    Raises:
        UserError: folders or images are missing, classes differ, or a file is damaged.
    """
    if root is None:
        raise UserError("data.path is null: give the folder that holds train/CLASS and test/CLASS")
    size = size or DEFAULT_SIZE
    classes = _classes(root / "train")
    if len(classes) < 2:
        raise UserError(f"{root / 'train'} has one class, {classes[0]}, but must have at least two")
    test_files = _files(root / "test", classes)
    return RawData(
        train=_split(_files(root / "train", classes), size),
        test=_split(test_files, size),
        classes=classes,
        groups=_groups(root, [path for path, _ in test_files]),
        val=_split(_files(root / "val", classes), size) if (root / "val").is_dir() else None,
    )


def _classes(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: put the images of each class in {folder}/CLASS")
    inside = sorted(path.name for path in folder.iterdir() if path.is_dir())
    classes = tuple(name for name in inside if not name.startswith("."))
    if not classes:
        raise UserError(f"{folder} has no folders: put the images of each class in {folder}/CLASS")
    return classes


def _files(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    """Return the image files under ``folder`` with class numbers, sorted by class and path."""
    if unmatched := set(_classes(folder)) ^ set(classes):
        raise UserError(
            f"{folder} and {folder.with_name('train')} differ in the classes "
            f"{', '.join(sorted(unmatched))}: each needs a folder in both"
        )
    labelled = []
    for label, name in enumerate(classes):
        walk = os.walk(folder / name, followlinks=True)
        paths = [Path(place, file) for place, _, files in walk for file in files]
        images = sorted(path for path in paths if _is_image(path.relative_to(folder)))
        if not images:
            kinds = " ".join(sorted(SUFFIXES))
            raise UserError(f"{folder / name} has no images ({kinds}): add some")
        labelled += [(path, label) for path in images]
    return labelled


def _is_image(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def _split(files: list[tuple[Path, int]], size: int) -> Split:
    paths, labels = zip(*files, strict=True)
    return Split(torch.from_numpy(load_images(paths, size)), torch.tensor(labels))


def _groups(root: Path, test: list[Path]) -> dict[str, Groups]:
    path = root / "groups.csv"
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, strict=True)
            header, rows = list(table.fieldnames or []), list(table)
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8 ({error}): save it as one") from error
    _check_table(path, header, rows)
    by_file = {row["filename"]: row for row in rows}
    ungrouped = [name for p in test if (name := p.relative_to(root).as_posix()) not in by_file]
    if ungrouped:
        raise UserError(
            f"{path} has no row for {ungrouped[0]}, but must have one for each test image"
        )
    members = [by_file[path.relative_to(root).as_posix()] for path in test]
    groups = {}
    for group_set in header[1:]:
        names = sorted({row[group_set] for row in members})
        ids = torch.tensor([names.index(row[group_set]) for row in members])
        groups[group_set] = Groups(tuple(names), ids)
    return groups


def _check_table(path: Path, header: list[str], rows: list[dict[str, str]]) -> None:
    if header[:1] != ["filename"] or len(header) < 2:
        raise UserError(f"{path} must have a header: filename, then the name of each group set")
    if len(set(header)) < len(header) or "classes" in header:
        raise UserError(f"{path} must have distinct column names, none of them classes: {header}")
    seen: set[str] = set()
    for line, row in enumerate(rows, start=2):
        if None in row or not all(row.values()):
            raise UserError(
                f"{path}, row {line}: it must have one cell for each column, none of them empty"
            )
        if row["filename"] in seen:
            raise UserError(f"{path}, row {line}: {row['filename']} is listed twice: keep one")
        seen.add(row["filename"])
