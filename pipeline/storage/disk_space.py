"""Error sentence for a full disk: its mount point and free space."""

import errno
import os
import shutil
from pathlib import Path

from pipeline.errors import of_disk

STATUS = errno.ENOSPC  # the exit status of a stage that ran out of disk space
WRITTEN = (".", "artifacts", ".dvc", "/tmp")  # noqa: S108 - where stages and the driver write


def shortage(error: BaseException) -> str | None:
    """Return the sentence about the full disk that caused ``error``; None for other errors."""
    cause: BaseException | None = error
    while cause is not None:
        if of_disk(cause):
            name = getattr(cause, "filename", None)
            return full(name) if isinstance(name, str | os.PathLike) else full()
        cause = cause.__cause__ or cause.__context__
    return None


def full(*files: str | os.PathLike[str]) -> str:
    """Return the sentence about the disk with the least space, of ``files`` or of `WRITTEN`."""
    paths = files or (*WRITTEN, os.environ.get("TMPDIR") or ".")
    usage = {mount(Path(path)): shutil.disk_usage(mount(Path(path))) for path in paths}
    fullest = min(usage, key=lambda disk: (usage[disk].free, disk))
    free, total = (f"{size / 1e6:,.1f} MB" for size in (usage[fullest].free, usage[fullest].total))
    return f"no space left on the disk at {fullest} ({free} of {total} free)"


def mount(path: Path) -> Path:
    """Return the mount point of the disk of ``path``, which need not exist."""
    path = path.resolve()
    while not path.is_mount() and path != path.parent:
        path = path.parent
    return path
