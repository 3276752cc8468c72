"""Files of the driver on a node that does not see its folder, as content-addressed objects.

An object is a tar archive of inputs at their paths, under a key made of paths and hashes. A node
unpacks each once; the folder of a run has hard links to the files of its inputs. This module's code
is sent to the nodes like pipeline/run/ray_node.py.
"""

import fcntl
import io
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

LAUNCHER = "stages/run"
STALE = 600  # seconds after which a folder without a lock is left over


def pack(root: Path, paths: Iterable[str]) -> bytes:
    """Return an archive of the files and folders ``paths``, relative to ``root``, that exist."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", dereference=True) as archive:
        for path in paths:
            if (root / path).exists():
                archive.add(root / path, arcname=path)
    return data.getvalue()


def unpack(data: bytes, folder: Path) -> None:
    """Write the files of an archive to ``folder``, all or none."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(partial, filter="data")
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


class NodeFolder:
    """A driver's folder on a node; those of drivers that are gone are removed."""

    def __init__(self) -> None:
        home = Path(tempfile.gettempdir()) / f"sms-node-{os.getuid()}"
        home.mkdir(mode=0o700, exist_ok=True)
        if home.lstat().st_uid != os.getuid():
            raise PermissionError(f"{home} must belong to user {os.getuid()}")
        for old in home.iterdir():
            if _abandoned(old):
                shutil.rmtree(old, ignore_errors=True)
        self.path = Path(tempfile.mkdtemp(dir=home))
        self.lock: IO[str] = (self.path / "lock").open("w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def stored(self, key: str) -> Path:
        """Return the folder of an object."""
        return self.path / "store" / key

    def place(self, name: str, attempt: int) -> Path:
        """Return the folder of one run of a stage."""
        return self.path / "runs" / f"{name}.{attempt}"

    def run(self, name: str, attempt: int, keys: Iterable[str]) -> Path:
        """Return a folder with the files of the objects ``keys``, for one run of a stage."""
        folder = self.place(name, attempt)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for key in keys:
            shutil.copytree(self.stored(key), folder, copy_function=os.link, dirs_exist_ok=True)
        launcher = folder / LAUNCHER
        if not launcher.exists():  # no stage depends on it
            launcher.parent.mkdir(exist_ok=True)
            launcher.hardlink_to(self.stored("code") / LAUNCHER)
        return folder

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.lock.close()


def _abandoned(folder: Path) -> bool:
    """Say whether the driver of ``folder`` is gone: the kernel has released its lock."""
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # it is being made or removed
        return time.time() - folder.stat().st_mtime > STALE if folder.exists() else False
    return True
