"""FolderSet: a corrupted set in ImageNet-C's layout, image files read in batches.

Hashing millions of files before every stage would take too long. They are listed once, with their
sizes (manifest.py), and each corruption and severity is compared with that list when it is read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.formats.images import decode
from pipeline.data.formats.prefetch import prefetch
from pipeline.errors import UserError
from pipeline.evaluate.corruptions.base import set_batch_size
from pipeline.evaluate.corruptions.constants import NAMES_19
from pipeline.evaluate.corruptions.manifest import Files, hash_names, image_files


@dataclass(frozen=True)
class FolderSet:
    """A `CorruptedSet` of image files.

    Args:
        root: the folder of the files.
        cells: the files by corruption and severity, as `list_files` returns them.
        classes: the names of the classes, by label.
        size: side length of the network's input, in pixels; images of this size are not resized.
    """

    root: Path
    cells: Mapping[str, Sequence[Mapping[str, Any]]]
    classes: Sequence[str]
    size: int
    synthetic: bool = False

    @property
    def names(self) -> Sequence[str]:
        """The corruptions."""
        return tuple(name for name in NAMES_19 if name in self.cells)

    @property
    def about(self) -> str:
        """The folder."""
        return f"`{self.root}`"

    def batches(self, corruption: str, severity: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels, decoded in threads, as in `CorruptedSet`.

        Raises:
            UserError: the files differ from the list, or one is damaged.
        """
        cell = self.cells[corruption][severity - 1]
        files, bytes_read = image_files(self.root / cell["folder"], self.classes), 0
        if hash_names(files) == cell["names"]:
            step = set_batch_size(self.size, self.size)
            parts = [files[i : i + step] for i in range(0, len(files), step)]
            for images, labels, size in prefetch(self._decoded, parts):
                bytes_read += size
                yield images, labels
        if bytes_read != cell["bytes"]:
            raise UserError(
                f"{self.root / cell['folder']} has changed since it was listed: restore it, "
                "or list it again with `dvc repro -f -s stages/dvc.yaml:corruptions`"
            )

    def _decoded(self, files: Files) -> tuple[Tensor, Tensor, int]:
        """Return images, labels, and the total size of the files in bytes."""
        images = np.stack([decode(path, self.size) for path, _ in files])
        labels = torch.tensor([label for _, label in files])
        return torch.from_numpy(images), labels, sum(path.stat().st_size for path, _ in files)
