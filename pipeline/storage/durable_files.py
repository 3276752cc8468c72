"""Files that survive a loss of power: synced to the disk before another file names them."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.storage.atomic_files import atomic_file


@contextmanager
def durable_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; at the end it becomes ``path`` and is on the disk."""
    with atomic_file(path) as temporary:
        yield temporary
        sync([temporary])
    sync([path.parent])


def sync(paths: Iterable[Path]) -> None:
    """Write the content of files, and the names in folders, to the disk; skip those missing."""
    for path in paths:
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files in ``folder`` of processes that were killed while they wrote."""
    for file in folder.glob(".*.tmp"):
        number = file.name.split(".")[-2]  # atomic_file names its process
        if number.isdecimal() and not _lives(int(number)):
            file.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
