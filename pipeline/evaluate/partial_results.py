"""What a long evaluation has found so far, in a file that outlives its stage."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from pipeline.errors import UserError
from pipeline.storage.atomic_files import read_json, write_json


class PartialResults:
    """How many images were right, of how many, by corruption and severity.

    Each cell is written, atomically, as soon as it is known; None as the ``path`` keeps them in
    memory. A file that cannot be read counts as none.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.found: dict[str, list[int]] = {}
        if path is not None and path.exists():
            try:
                self.found = read_json(path)
            except UserError:
                self.found = {}

    def __contains__(self, cell: tuple[str, int]) -> bool:
        return _name(cell) in self.found

    def add(self, cell: tuple[str, int], right: int, images: int) -> None:
        """Remember a cell."""
        self.found[_name(cell)] = [right, images]
        if self.path is not None:
            write_json(self.path, self.found)

    def images(self, cell: tuple[str, int]) -> int:
        """Return how many images a cell has."""
        return self.found[_name(cell)][1]

    def accuracy(self, cell: tuple[str, int]) -> float:
        """Return the share that was right."""
        right, images = self.found[_name(cell)]
        return right / images

    def delete(self) -> None:
        """Remove the file: the result stands elsewhere."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _name(cell: tuple[str, int]) -> str:
    return f"{cell[0]}/{cell[1]}"


def side_file(out: Path, read: Sequence[Path], device: torch.device) -> Path:
    """Return where a stage keeps what it has found before ``out`` is whole.

    DVC clears ``out`` before the stage runs, so the file lies beside it, in ``.unfinished``. Its
    name is a hash of all that could change a bit of the result: the content of the files in
    ``read``, of its folders the names, sizes and times of what is in them, the project's code,
    PyTorch, its device and its threads. Whatever differs starts another file.
    """
    seal = hashlib.sha256()
    for path in read:
        if path.is_dir():
            for file in sorted(path.iterdir()):
                info = file.stat()
                seal.update(f"{file.name} {info.st_size} {info.st_mtime_ns}\n".encode())
        else:
            seal.update(_content(path))
    code = Path(__file__).parent.parent
    for source in sorted(code.rglob("*.py")):
        seal.update(f"{source.relative_to(code)}\n".encode() + _content(source))
    seal.update(f"{torch.__version__} {device.type} {torch.get_num_threads()}".encode())
    return out.parent / ".unfinished" / f"{seal.hexdigest()[:32]}.json"


def _content(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
