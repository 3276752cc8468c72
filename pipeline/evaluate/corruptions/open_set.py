"""Opens a corrupted set: NumPy files, a manifest of image files, or settings of a generated set."""

from pathlib import Path

from pipeline.data.base import Dataset
from pipeline.errors import UserError
from pipeline.evaluate.corruptions import npy_set
from pipeline.evaluate.corruptions.base import CorruptedSet
from pipeline.evaluate.corruptions.folder_set import FolderSet
from pipeline.evaluate.corruptions.generated_set import GeneratedSet
from pipeline.storage.atomic_files import read_json


def open_set(folder: Path, data: Dataset) -> CorruptedSet:
    """Return the set of ``folder`` for the classes and the image size of ``data``.

    Raises:
        UserError: the folder has none, it is incomplete, or its image size differs.
    """
    size = data.test.images.shape[-1]
    meta = read_json(folder / "meta.json") if (folder / "meta.json").exists() else {}
    if meta.get("layout") == "folders":
        _check_shape(folder, (size, size, 3), data)
        return FolderSet(Path(meta["root"]), meta["cells"], data.classes, size)
    if meta.get("layout") == "streamed":
        return GeneratedSet(data.test, meta["constants"], meta["seed"], meta["images"])
    stored = npy_set.read(folder)
    _check_shape(folder, next(iter(stored.images.values())).shape[1:], data)
    return stored


def _check_shape(folder: Path, shape: tuple[int, ...], data: Dataset) -> None:
    """Refuse corrupted images [H, W, C] of another shape than those of ``data``."""
    channels, height, width = data.test.images.shape[1:]
    if shape != (height, width, channels):
        raise UserError(
            f"{folder} has images of {'x'.join(map(str, shape))} (height, width, channels), but "
            f"those of {data.name} are {height}x{width}x{channels}: set evaluate.corruptions_path "
            "to the set of the same data, or leave it null"
        )
