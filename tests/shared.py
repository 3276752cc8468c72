"""The packs of real images and text that some tests read where they are at hand."""

import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("SMS_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
# Early 3.11 has no such filter, and Python 3.12 and 3.13 want to be told which.
SAFELY = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def pack(name: str) -> Path:
    """Return the archive ``name``, or skip the test where it is not at hand."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"{path} is not here: set SMS_SHARED_DATA to the folder that holds it")
    return path


def unpack(
    archive: tarfile.TarFile, folder: Path, members: Iterable[tarfile.TarInfo] | None = None
) -> None:
    """Unpack ``members``, all by default, into ``folder`` and nowhere else."""
    archive.extractall(folder, members, **SAFELY)
