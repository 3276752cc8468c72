"""From a folder to the corrupted set it holds, describes, or says how to generate."""

from pathlib import Path

from pipeline.data.base import Dataset
from pipeline.evaluate.corruptions import arrays
from pipeline.evaluate.corruptions.base import CorruptedSet
from pipeline.evaluate.corruptions.folders import Folders
from pipeline.files import read_json


def opened(folder: Path, data: Dataset) -> CorruptedSet:
    """Return the set of ``folder`` for the classes and the image size of ``data``.

    Raises:
        UserError: there is none, or it is not whole.
    """
    meta = read_json(folder / "meta.json") if (folder / "meta.json").exists() else {}
    if meta.get("layout") == "folders":
        size = data.test.images.shape[-1]
        return Folders(Path(meta["root"]), meta["cells"], data.classes, size)
    if meta.get("layout") == "streamed":
        # Imported here because scikit-image takes a second.
        from pipeline.evaluate.corruptions.streamed import Streamed  # noqa: PLC0415

        return Streamed(data.test, meta["constants"], meta["seed"], meta["images"])
    return arrays.read(folder)
