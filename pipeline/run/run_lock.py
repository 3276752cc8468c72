"""The lock of a checkout, and of a bundle: one run at a time plans its graph and runs it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError


@contextmanager
def run_lock(root: Path) -> Iterator[None]:
    """Hold the lock of the checkout ``root``; the kernel releases that of a killed process.

    Raises:
        UserError: another process holds it.
    """
    path = root / ".dvc" / "tmp" / "sms" / "driver.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with only_run(path, root):
        yield


@contextmanager
def only_run(path: Path, root: Path) -> Iterator[int]:
    """Hold the lock file ``path`` of the folder ``root``, as `run_lock` does; give its descriptor.

    A process that inherits the descriptor holds the lock too, until it ends.

    Raises:
        UserError: another process holds it.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"another run is at work in {root} (process {file.read().strip() or 'unknown'}): "
                "wait until it ends, or stop it"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield file.fileno()
