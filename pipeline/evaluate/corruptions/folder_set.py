"""Corrupted sets in ImageNet-C's layout: image files, read a batch at a time.

Millions of files are no dependency that could be hashed before every stage. They are listed once,
with their sizes (listing.py), and each corruption and severity is compared with that list when it
is read.
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
from pipeline.evaluate.corruptions.manifest import Files, image_files, hash_names


@dataclass(frozen=True)
class FolderSet:
    """A `CorruptedSet` of image files.

    Args:
        root: the folder they are in.
        cells: what `listed` found there, by corruption and severity.
        classes: the names of the classes, by label.
        size: pixels a side of what the network takes; images of this size are not resized.
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
        """Yield images and labels, decoded in threads, as `CorruptedSet` says.

        Raises:
            UserError: the files are not those that were listed, or one is damaged.
        """
        cell = self.cells[corruption][severity - 1]
        files, read = image_files(self.root / cell["folder"], self.classes), 0
        if hash_names(files) == cell["names"]:
            step = set_batch_size(self.size, self.size)
            parts = [files[i : i + step] for i in range(0, len(files), step)]
            for images, labels, size in prefetch(self._decoded, parts):
                read += size
                yield images, labels
        if read != cell["bytes"]:
            raise UserError(
                f"{self.root / cell['folder']} is not what it was when it was listed: put it back, "
                "or list it anew with `dvc repro -f -s stages/dvc.yaml:corruptions`"
            )

    def _decoded(self, files: Files) -> tuple[Tensor, Tensor, int]:
        """Return images and labels, and how many bytes their files have."""
        images = np.stack([decode(path, self.size) for path, _ in files])
        labels = torch.tensor([label for _, label in files])
        return torch.from_numpy(images), labels, sum(path.stat().st_size for path, _ in files)
