"""Celeb-A: faces labelled blond or not, in the four groups Male x Blond_Hair.

Official files, in ROOT/celeba: img_align_celeba/NNNNNN.jpg, list_attr_celeba.txt (one row of
40 attributes an image, 1 or -1) and list_eval_partition.txt (0 training, 1 validation, 2 test).
The images may be a subset; each needs a row in both files.

Source: Liu et al. 2015, Deep Learning Face Attributes in the Wild; paper, Appendix B.2.4.
"""

from pathlib import Path

import torch

from pipeline.data.base import Groups, RawData, Split
from pipeline.data.formats.images import load_images
from pipeline.errors import UserError

READS = ("celeba",)  # parts of data.path whose change re-runs the stage `data`
TARGET, GROUP = "Blond_Hair", "Male"
CLASSES = ("non-blond", "blond")
GROUPS = ("female non-blond", "female blond", "male non-blond", "male blond")
DEFAULT_SIZE = 64
NUMBERS = {"-1": -1, "0": 0, "1": 1, "2": 2}  # attributes and partitions

EXPECTED = (
    "the folder celeba should hold img_align_celeba/ (all aligned and cropped images, or some), "
    "list_attr_celeba.txt and list_eval_partition.txt, from "
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, which gives them for non-commercial "
    "research only; set data.path to the folder above celeba"
)


def read(root: Path | None, size: int | None) -> RawData:
    """Return the faces under ``root``/celeba as RGB squares with ``size`` (64) pixels a side.

    Raises:
        UserError: a file or folder is missing or damaged, an image has no row, or a split is empty.
    """
    folder = (root or Path("data")) / "celeba"
    attributes, names = _rows(folder / "list_attr_celeba.txt", header=True)
    partition, _ = _rows(folder / "list_eval_partition.txt", header=False)
    for name in (TARGET, GROUP):
        if name not in names:
            raise UserError(
                f"{folder / 'list_attr_celeba.txt'} has no column {name}: download it again"
            )
    files = _images(folder / "img_align_celeba", attributes, partition)
    splits, groups = {}, {}
    for part, code in (("train", 0), ("val", 1), ("test", 2)):
        images_of_part = [file for file in files if partition[file.name] == [code]]
        if not images_of_part:
            raise UserError(f"{folder} has no {part} image (partition {code}): add some")
        rows = torch.tensor([attributes[file.name] for file in images_of_part]) > 0
        blond, male = rows[:, names.index(TARGET)].long(), rows[:, names.index(GROUP)].long()
        images = torch.from_numpy(load_images(images_of_part, size or DEFAULT_SIZE))
        splits[part], groups[part] = Split(images, blond), 2 * male + blond
    return RawData(
        splits["train"],
        splits["test"],
        CLASSES,
        groups={f"{GROUP} x {TARGET}": Groups(GROUPS, groups["test"], groups["train"])},
        val=splits["val"],
    )


def _rows(path: Path, *, header: bool) -> tuple[dict[str, list[int]], list[str]]:
    """Return the integers of each image, by file name, and the names of the columns."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        raise UserError(f"{path} is missing: {EXPECTED}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: download it again") from None
    names = lines[1].split() if header and len(lines) > 1 else []
    rows = {}
    for number, line in enumerate(lines[2 if header else 0 :], start=3 if header else 1):
        name, *values = line.split() or [""]
        try:
            rows[name] = [NUMBERS[value] for value in values]
        except KeyError:
            raise UserError(
                f"{path}, line {number}: {line[:40]!r} is not a row: download it again"
            ) from None
        if len(values) != (len(names) if header else 1):
            raise UserError(f"{path}, line {number} has {len(values)} values: download it again")
    return rows, names


def _images(
    folder: Path, attributes: dict[str, list[int]], partition: dict[str, list[int]]
) -> list[Path]:
    files = sorted(folder.glob("*.jpg"))
    if not files:
        raise UserError(f"{folder} has no .jpg images: {EXPECTED}")
    for file in files:
        if file.name not in attributes or file.name not in partition:
            raise UserError(
                f"{file} must have a row in both lists of {folder.parent}: download them again"
            )
    return files
