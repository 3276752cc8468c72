"""DVC's list of the files in use, .dvc/tmp/rwlock, written so that it is whole after a kill."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

from dvc import rwlock  # type: ignore[import-untyped]

from pipeline.storage.atomic_files import atomic_file


class WholeFiles:
    """The file system of `dvc.rwlock`, whose written files appear whole or not at all."""

    def __init__(self, files: Any) -> None:
        self.files, self.join = files, files.join

    def open(self, path: str, mode: str = "r", **options: Any) -> AbstractContextManager[IO[str]]:
        """Open a file as DVC does; a written one appears at the end of the block."""
        if mode == "w":
            return _written(Path(path), **options)
        opened: AbstractContextManager[IO[str]] = self.files.open(path, mode, **options)
        return opened


@contextmanager
def _written(path: Path, **options: Any) -> Iterator[IO[str]]:
    with atomic_file(path) as temporary, temporary.open("w", **options) as file:
        yield file


_edit = rwlock._edit_rwlock


def _edit_whole(folder: str, files: Any, hardlink: Any) -> Any:
    return _edit(folder, WholeFiles(files), hardlink)


def write_whole_lists() -> None:
    """Let the DVC of this process replace its list of the files in use.

    DVC writes it in place, several times for every stage, and refuses every command if it is empty.
    """
    rwlock._edit_rwlock = _edit_whole
