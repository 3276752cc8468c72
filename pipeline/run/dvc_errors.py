"""Errors of DVC's functions, as those of a stage or of a full disk."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dvc.exceptions import DvcException  # type: ignore[import-untyped]

from pipeline.run.interfaces import DiskFullError, StageError
from pipeline.storage import disk_space


@contextmanager
def stage_errors(cache: Path) -> Iterator[None]:
    """Turn the errors of DVC and of the system in the block into those of a stage.

    Args:
        cache: DVC's cache, which may lie on a disk of its own.

    Raises:
        DiskFullError: a disk is full; the sentence names that with the least space.
        StageError: another error.

    """
    try:
        yield
    except Exception as error:
        if disk_space.shortage(error):  # DVC's databases wrap the error
            places = [*disk_space.WRITTEN, tempfile.gettempdir(), str(cache), *_files(error)]
            raise DiskFullError(disk_space.full(*places)) from error
        if isinstance(error, DvcException | OSError):
            raise StageError(sentence(error)) from error
        raise


def _files(error: BaseException | None) -> Iterator[str]:
    """Yield the files that an error and its causes name."""
    while error is not None:
        name = getattr(error, "filename", None)
        if isinstance(name, str):
            yield name
        error = error.__cause__ or error.__context__


def sentence(error: Exception) -> str:
    """Return the text of an error, or its type if it has none."""
    return str(error) or type(error).__name__
