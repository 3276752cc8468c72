"""From a folder to the corrupted set it holds, describes, or says how to generate."""

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
        UserError: there is none, or it is not whole.
    """
    size = data.test.images.shape[-1]
    meta = read_json(folder / "meta.json") if (folder / "meta.json").exists() else {}
    if meta.get("layout") == "folders":
        _refuse_others(folder, (size, size, 3), data)
        return FolderSet(Path(meta["root"]), meta["cells"], data.classes, size)
    if meta.get("layout") == "streamed":
        return GeneratedSet(data.test, meta["constants"], meta["seed"], meta["images"])
    found = npy_set.read(folder)
    _refuse_others(folder, next(iter(found.images.values())).shape[1:], data)
    return found


def _refuse_others(folder: Path, shape: tuple[int, ...], data: Dataset) -> None:
    """Refuse corrupted images [H, W, C] that the network of ``data`` cannot take."""
    channels, height, width = data.test.images.shape[1:]
    if shape != (height, width, channels):
        raise UserError(
            f"{folder} has images of {'x'.join(map(str, shape))} (height, width, channels), but "
            f"those of {data.name} are {height}x{width}x{channels}: set evaluate.corruptions_path "
            "to the set of the same data, or leave it null"
        )
