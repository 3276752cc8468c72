"""CIFAR files, "python version": pickled batches of rows of 3,072 bytes.

Loading a pickle can run arbitrary code. These are read by an unpickler that can only build NumPy
arrays, so an untrusted file is safe to load; the MD5 sum of the official archive is checked when it
is downloaded.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import fcntl
import http.client
import io
import pickle
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.base import Split
from pipeline.errors import UserError

PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
MOST = 2**30  # bytes of a file; the largest official one has 155 MB
DOWNLOAD_ERRORS = (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError)


@dataclass(frozen=True)
class Archive:
    """An official archive: its URL and MD5 sum, and the files that it unpacks into ``folder``."""

    name: str
    url: str
    md5: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str

    @property
    def files(self) -> tuple[str, ...]:
        """All files that are read."""
        return *self.train, *self.test, self.meta


def locate(archive: Archive, root: Path) -> Path:
    """Return the folder of the batches under ``root``; download them if a file is missing.

    Of several processes one downloads, and the others wait.

    Raises:
        UserError: the download failed.
    """
    folder = root / archive.folder
    if absent := _absent(archive, folder):
        try:
            root.mkdir(parents=True, exist_ok=True)
            with (root / f".{archive.folder}.lock").open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if _absent(archive, folder):
                    _download(archive, root)
        except DOWNLOAD_ERRORS as error:
            raise UserError(
                f"{folder} has no {', '.join(absent)}, and downloading {archive.url} failed "
                f"({error}): get the python version of {archive.name} from {PAGE} (which "
                f"asks to cite Krizhevsky, 2009) and unpack it in {root}"
            ) from error
    return folder


def _absent(archive: Archive, folder: Path) -> list[str]:
    return [name for name in archive.files if not (folder / name).is_file()]


def _download(archive: Archive, root: Path) -> None:
    """Download and unpack the archive; each file appears whole."""
    # The import takes 4 s.
    from torchvision.datasets import utils  # type: ignore[import-untyped]  # noqa: PLC0415

    with tempfile.TemporaryDirectory(dir=root, prefix=".") as new:
        utils.download_and_extract_archive(archive.url, str(root), new, md5=archive.md5)
        (root / archive.folder).mkdir(exist_ok=True)
        for name in archive.files:
            Path(new, archive.folder, name).replace(root / archive.folder / name)


def read_split(paths: Sequence[Path], key: str, classes: tuple[str, ...]) -> Split:
    """Return the batches in ``paths`` as one split, with the labels listed under ``key``."""
    rows = np.concatenate([_rows(unpickle(path), path) for path in paths])
    labels = torch.cat([ids(path, key, classes) for path in paths])
    return Split(torch.from_numpy(rows).reshape(-1, 3, 32, 32), labels)


def unpickle(path: Path) -> dict[str, Any]:
    """Return the dictionary pickled in ``path``, without running code of the pickle.

    Raises:
        UserError: the file is damaged, not a dictionary, or holds more than arrays.
    """
    try:
        if path.stat().st_size > MOST:
            raise ValueError(f"it has more than {MOST:,} bytes")
        value = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except Exception as error:  # a damaged pickle may raise anything
        raise _damaged(path, repr(error)) from error
    if not isinstance(value, dict):
        raise _damaged(path, f"a {type(value).__name__}, not a dict")
    return value


def ids(path: Path, key: str, classes: tuple[str, ...]) -> Tensor:
    """Return the class numbers that the batch ``path`` lists under ``key``, int64 [N]."""
    batch = unpickle(path)
    numbers, allowed = batch.get(key), range(len(classes))
    if not isinstance(numbers, list) or not all(number in allowed for number in numbers):
        raise _damaged(path, f"no list of numbers below {len(classes)} called {key}")
    if len(numbers) != len(_rows(batch, path)):
        raise _damaged(path, f"not one of the {key} for each image")
    return torch.tensor(numbers, dtype=torch.int64)


def class_names(path: Path, key: str) -> tuple[str, ...]:
    """Return the class names that the meta file ``path`` lists under ``key``."""
    listed = unpickle(path).get(key)
    if not isinstance(listed, list):
        raise _damaged(path, f"no list called {key}")
    return tuple(str(name) for name in listed)


def _rows(batch: dict[str, Any], path: Path) -> NDArray[np.uint8]:
    rows = batch.get("data")
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.shape[1:] != (3072,):
        raise _damaged(path, "no uint8 array of 3,072 columns called data")
    return rows


class _ArraysOnly(pickle._Unpickler):
    """An unpickler that can build NumPy arrays and nothing else.

    It is the one in Python: that in C allocates as much memory as a number in the file says.
    """

    # The function that rebuilds arrays is in numpy.core, and since NumPy 2 in numpy._core.
    _rebuild = np.empty(0).__reduce__()[0]
    _known: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"): _rebuild,
        ("numpy._core.multiarray", "_reconstruct"): _rebuild,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Return the named global if arrays need it; refuse any other."""
        try:
            return self._known[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module_name}.{global_name}") from None


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is not an official CIFAR file ({why}): delete it, and run again")
