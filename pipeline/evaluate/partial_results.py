"""Partial results of a long evaluation, in a file that survives an interrupted stage."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import torch

from pipeline import code_files
from pipeline.errors import UserError
from pipeline.process import cpu_name
from pipeline.storage.atomic_files import read_json, write_json

DRIVER = {"config", "plan", "report", "run", "track"}  # which no stage may import (pyproject.toml)
LIBRARIES = ("numpy", "pillow", "scikit-image", "scipy", "torch")


class PartialResults:
    """Numbers of correct and of all images, by cell: a corruption and a severity.

    Each cell is written at once and atomically to ``path``; without a path they stay in memory. An
    unreadable file is ignored.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.counts: dict[str, list[int]] = {}
        if path is not None and path.exists():
            with suppress(UserError):
                content = read_json(path)
                if isinstance(content, dict) and all(map(_is_count, content.values())):
                    self.counts = content

    def __contains__(self, cell: tuple[str, int]) -> bool:
        return _name(cell) in self.counts

    def add(self, cell: tuple[str, int], correct: int, images: int) -> None:
        """Add the counts of a cell."""
        self.counts[_name(cell)] = [correct, images]
        if self.path is not None:
            write_json(self.path, self.counts)

    def images(self, cell: tuple[str, int]) -> int:
        """Return the number of images of a cell."""
        return self.counts[_name(cell)][1]

    def accuracy(self, cell: tuple[str, int]) -> float:
        """Return the accuracy of a cell."""
        correct, images = self.counts[_name(cell)]
        return correct / images

    def delete(self) -> None:
        """Delete the file."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _is_count(value: object) -> bool:
    """Say whether ``value`` is [correct, images]."""
    if not isinstance(value, list) or [type(each) for each in value] != [int, int]:
        return False
    correct, images = value
    return bool(0 <= correct <= images and images > 0)


def _name(cell: tuple[str, int]) -> str:
    return f"{cell[0]}/{cell[1]}"


def side_file(out: Path, read: Sequence[Path], device: torch.device) -> Path:
    """Return the file for a stage's partial results until ``out`` is complete.

    DVC clears ``out`` before the stage runs, so the file is in the folder ``.unfinished`` beside
    it. Its name has a hash of what could change a bit of the result: the content of the files in
    ``read``; names, sizes and times of the files in its folders; the code that stages may import,
    the project's and the files under ``--code``; the versions of `LIBRARIES`; the processor or GPU
    and the number of threads. Any change starts a new file and removes the earlier ones.
    """
    key = hashlib.sha256()
    for path in read:
        if path.is_dir():
            for file in sorted(path.iterdir()):
                info = file.stat()
                key.update(f"{file.name} {info.st_size} {info.st_mtime_ns}\n".encode())
        else:
            key.update(_content(path))
    code = Path(__file__).parent.parent
    for source in sorted(code.rglob("*.py")):
        if source.relative_to(code).parts[0] not in DRIVER:
            key.update(f"{source.relative_to(code)}\n".encode() + _content(source))
    for source in code_files.allowed():
        key.update(f"{source}\n".encode() + _content(source))
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()
    versions = [version(library) for library in LIBRARIES]
    key.update(f"{versions} {device.type} {machine} {torch.get_num_threads()}".encode())
    file = out.parent / ".unfinished" / f"{out.name}.{key.hexdigest()[:32]}.json"
    for earlier in file.parent.glob(f"{out.name}.{'?' * 32}.json"):
        if earlier != file:
            earlier.unlink(missing_ok=True)
    return file


def _content(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
