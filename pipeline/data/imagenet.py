"""ImageNet-1K, or any of its classes: ROOT/train/WNID/*.JPEG and ROOT/val/WNID/*.JPEG.

The layout and the order of the classes (by WNID) are those of torchvision's ImageNet, so its
pretrained weights fit. The official validation images are the test set; validation is split off the
training images. A million images do not fit in memory as pixels, so they stay compressed: training
images are shrunk once, test images are kept byte for byte, so that results are comparable with
others. Readable class names are read from LOC_synset_mapping.txt or classes.txt beside train and
val, if there is one.

Source: Russakovsky et al. 2015, ImageNet Large Scale Visual Recognition Challenge.
"""

import re
from pathlib import Path

import torch

from pipeline.data.base import Groups, RawData, Split
from pipeline.data.formats.image_files import ImageFiles
from pipeline.data.formats.images import short_side
from pipeline.data.formats.lazy_images import LazyImages
from pipeline.errors import UserError

# Parts of data.path whose change re-runs the stage `data`.
READS = ("imagenet", "train", "val", "LOC_synset_mapping.txt", "classes.txt")
DEFAULT_SIZE = 224
SUFFIXES = {".jpeg", ".jpg"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of published weights
NAMES = ("LOC_synset_mapping.txt", "classes.txt")
TARS = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")

EXPECTED = (
    f"data.path should hold train/WNID/*.JPEG and val/WNID/*.JPEG of {TARS[0]} and {TARS[1]}, from "
    "https://image-net.org/download after registering; they are for non-commercial research and "
    "education only and may not be redistributed"
)


def read(root: Path | None, size: int | None) -> RawData:
    """Return the images under ``root``, or ``root``/imagenet, as squares of ``size`` (224) pixels.

    Raises:
        UserError: a folder or its images are missing, or the classes of train and val differ.
    """
    folder, size = root or Path("data"), size or DEFAULT_SIZE
    if (folder / "imagenet").is_dir():
        folder /= "imagenet"
    classes = _classes(folder, "train")
    if unmatched := set(classes) ^ set(_classes(folder, "val")):
        raise UserError(
            f"{folder / 'train'} and {folder / 'val'} differ in the classes "
            f"{', '.join(sorted(unmatched)[:5])}: each needs a folder in both"
        )
    if len(classes) < 2:
        raise UserError(
            f"{folder / 'train'} has one class, {classes[0]}, but must have at least two"
        )
    train = _split(folder / "train", classes, size, short_side(size))
    test = _split(folder / "val", classes, size, None)
    names = _names(folder, classes)
    return RawData(
        train,
        test,
        classes,
        groups={"classes": Groups(names, test.labels)},
        scale=(torch.tensor(MEAN), torch.tensor(STD)),
    )


def _classes(folder: Path, part: str) -> tuple[str, ...]:
    inside = folder / part
    if inside.is_dir():
        classes = sorted(
            path.name for path in inside.iterdir() if re.fullmatch(r"n\d{8}", path.name)
        )
        if classes:
            return tuple(classes)
    if all((folder / tar).is_file() for tar in TARS):
        raise UserError(
            f"{folder} has {TARS[0]} and {TARS[1]}, but no {part}/WNID: put "
            'ILSVRC2012_devkit_t12.tar.gz beside them and unpack all three by: python -c "from '
            f"torchvision.datasets import ImageNet as I; I('{folder}', 'train'); "
            f"I('{folder}', 'val')\""
        )
    raise UserError(f"{inside} has no folders named by WNID, as n01440764: {EXPECTED}")


def _split(folder: Path, classes: tuple[str, ...], size: int, short: int | None) -> Split:
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = sorted(str(p) for p in (folder / name).iterdir() if p.suffix.lower() in SUFFIXES)
        if not files:
            raise UserError(f"{folder / name} has no .JPEG images: {EXPECTED}")
        paths += files
        labels += [label] * len(files)
    return Split(LazyImages(ImageFiles(paths, short), size), torch.tensor(labels))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: get it again, or remove it") from None


def _names(folder: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return each class's WNID, followed by its readable name if a file gives one."""
    known: dict[str, str] = {}
    for file in NAMES:
        if not known and (folder / file).is_file():
            text = _text(folder / file)
            known = dict(re.findall(r"\b(n\d{8})[\s,]+([^,\n]+)", text))
    return tuple(f"{name} {known[name].strip()}" if name in known else name for name in classes)
