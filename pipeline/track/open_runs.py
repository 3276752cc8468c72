"""Files of the MLflow runs that are open, locked by their writers, in the folder of the database.

The kernel unlocks the file of a writer that was killed: the next one ends that writer's runs, which
otherwise would look as if they went on.
"""

import fcntl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

FOLDER = Path(".dvc/tmp/sms/mlflow")


def hold(run: str) -> IO[str]:
    """Return the locked file of a run, to be kept open."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = (FOLDER / run).open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def release(file: IO[str]) -> None:
    """Remove the file of a run that has ended."""
    Path(file.name).unlink(missing_ok=True)
    file.close()


def abandoned() -> Iterator[str]:
    """Yield the runs whose writers are gone, and remove their files."""
    for path in sorted(FOLDER.glob("*")):
        with suppress(FileNotFoundError), path.open() as file:  # released meanwhile, it is gone
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if path.exists():
                yield path.name
                path.unlink(missing_ok=True)
