"""A full disk: which one it is and how much of it is free, in one sentence."""

import errno
import os
import shutil
from pathlib import Path

STATUS = errno.ENOSPC  # the exit status of a stage that ran out of disk space
CODES = {errno.ENOSPC, errno.EDQUOT}
WORDS = ("No space left on device", "Disk quota exceeded", "disk is full")  # Rust's, SQLite's too
WRITTEN = (".", "artifacts", ".dvc", "/tmp")  # noqa: S108 - where stages and the driver write


def shortage(error: BaseException) -> str | None:
    """Return the sentence about a full disk that ``error`` stems from; None for other errors."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "errno", None) in CODES or any(word in str(cause) for word in WORDS):
            name = getattr(cause, "filename", None)
            return full(name) if isinstance(name, str | os.PathLike) else full()
        cause = cause.__cause__ or cause.__context__
    return None


def full(*files: str | os.PathLike[str]) -> str:
    """Return the sentence about the disk of ``files``, or of those written, with the least room."""
    places = files or (*WRITTEN, os.environ.get("TMPDIR") or ".")
    mounts = {mount(Path(place)) for place in places}
    usage = {where: shutil.disk_usage(where) for where in mounts}
    where = min(usage, key=lambda one: (usage[one].free, one))
    free, total = (f"{size / 1e6:,.1f} MB" for size in (usage[where].free, usage[where].total))
    return f"no space left on the disk at {where} ({free} of {total} free)"


def mount(path: Path) -> Path:
    """Return where the disk that holds ``path``, or is to hold it, is mounted."""
    path = path.resolve()
    while not path.is_mount() and path != path.parent:
        path = path.parent
    return path
