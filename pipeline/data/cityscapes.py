"""Cityscapes, fine annotations: street scenes, each pixel of one of 19 classes or ignored.

Official files, in ROOT/cityscapes: leftImg8bit/{train,val}/CITY/*_leftImg8bit.png and
gtFine/{train,val}/CITY/*_gtFine_labelIds.png. The 500 validation images are the test set,
since the labels of the official one are not public; validation is split off the 2,975 training
images. Full images (1024x2048) would take 29 GB of memory, so they are resized when read: 1.8 GB at
the default height of 256, 7.3 GB at 512.

Source: Cordts et al. 2016, The Cityscapes Dataset; paper, Appendix A.1.
"""

from pathlib import Path

from pipeline.data.base import RawData, Split
from pipeline.data.formats.label_maps import load_pairs
from pipeline.errors import UserError

READS = ("cityscapes",)  # parts of data.path whose change re-runs the stage `data`
# The official id of each of the 19 classes that are evaluated, in the order of its training ids.
IDS = {
    **{"road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17},
    **{"traffic light": 19, "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23},
    **{"person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31},
    **{"motorcycle": 32, "bicycle": 33},
}
DEFAULT_SIZE = 256
IMAGE, LABELS = "_leftImg8bit.png", "_gtFine_labelIds.png"

EXPECTED = (
    "ROOT/cityscapes should hold leftImg8bit and gtFine with the folders train and val of "
    "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, from "
    "https://www.cityscapes-dataset.com after registering; they are free for non-commercial "
    "purposes and may not be passed on. Set data.path to ROOT"
)


def read(root: Path | None, size: int | None) -> RawData:
    """Return the images under ``root``/cityscapes, ``size`` (256) pixels high and twice as wide.

    Raises:
        UserError: a folder, an image or its map is missing or damaged.
    """
    folder, height = (root or Path("data")) / "cityscapes", size or DEFAULT_SIZE
    train, test = _split(folder, "train", height), _split(folder, "val", height)
    return RawData(train, test, tuple(IDS), task="segmentation")


def _split(folder: Path, part: str, height: int) -> Split:
    images = sorted((folder / "leftImg8bit" / part).glob(f"*/*{IMAGE}"))
    if not images:
        raise UserError(f"{folder / 'leftImg8bit' / part} has no CITY/*{IMAGE}: {EXPECTED}")
    pairs = []
    for image in images:
        name = image.name.removesuffix(IMAGE) + LABELS
        labels = folder / "gtFine" / part / image.parent.name / name
        if not labels.is_file():
            raise UserError(f"{labels} is missing, the map of {image.name}: {EXPECTED}")
        pairs.append((image, labels))
    return load_pairs(pairs, height, {value: label for label, value in enumerate(IDS.values())})
