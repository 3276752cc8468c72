"""Opens a corrupted set: NumPy files, a manifest of image files, or settings of a generated set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.data.base import Dataset
from pipeline.errors import UserError
from pipeline.evaluate.corruptions import npy_set
from pipeline.evaluate.corruptions.base import CorruptedSet
from pipeline.evaluate.corruptions.constants import BENCHMARKS, NAMES_19, SEVERITIES
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
    layout = meta.get("layout") if isinstance(meta, dict) else "none"
    if layout is not None and not (str(layout) in LAYOUTS and LAYOUTS[str(layout)](meta)):
        raise UserError(
            f"{folder / 'meta.json'} is not that of a corrupted set: delete it and run `dvc repro`"
        )
    if layout == "folders":
        _check_shape(folder, (size, size, 3), data)
        if not Path(meta["root"]).is_dir():
            raise UserError(
                f"{meta['root']}, which {folder / 'meta.json'} lists, does not exist: put the "
                "images there, or list them again with "
                "`dvc repro -f -s stages/dvc.yaml:corruptions`"
            )
        return FolderSet(Path(meta["root"]), meta["cells"], data.classes, size)
    if layout == "streamed":
        return GeneratedSet(data.test, meta["constants"], meta["seed"], meta["images"])
    stored = npy_set.read(folder)
    _check_shape(folder, next(iter(stored.images.values())).shape[1:], data)
    return stored


def _is_manifest(meta: dict[str, Any]) -> bool:
    """Say whether ``meta`` lists image files as manifest.py does, in folders below one root."""
    cells = meta.get("cells")
    if not isinstance(meta.get("root"), str) or not isinstance(cells, dict):
        return False
    return not cells.keys() - {*NAMES_19} and all(
        isinstance(each, list) and len(each) == len(SEVERITIES) and all(map(_is_cell, each))
        for each in cells.values()
    )


def _is_cell(cell: Any) -> bool:
    if not isinstance(cell, dict) or not isinstance(cell.get("folder"), str):
        return False
    folder = Path(cell["folder"])
    typed = isinstance(cell.get("names"), str) and isinstance(cell.get("bytes"), int)
    return typed and not folder.is_absolute() and ".." not in folder.parts


def _is_streamed(meta: dict[str, Any]) -> bool:
    numbers = meta.get("seed"), meta.get("images")
    return str(meta.get("constants")) in BENCHMARKS and all(
        type(each) is int and 0 <= each < 2**63 for each in numbers
    )


LAYOUTS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "folders": _is_manifest,
    "streamed": _is_streamed,
}


def _check_shape(folder: Path, shape: tuple[int, ...], data: Dataset) -> None:
    """Refuse corrupted images [H, W, C] of another shape than those of ``data``."""
    channels, height, width = data.test.images.shape[1:]
    if shape != (height, width, channels):
        raise UserError(
            f"{folder} has images of {'x'.join(map(str, shape))} (height, width, channels), but "
            f"those of {data.name} are {height}x{width}x{channels}: set evaluate.corruptions_path "
            "to the set of the same data, or leave it null"
        )
