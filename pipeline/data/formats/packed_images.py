"""Packed images: many compressed images in one file, read one at a time.

The file is safetensors: ``bytes`` uint8 [total], one image after another; ``offsets`` int64
[N + 1], image i being bytes[offsets[i]:offsets[i + 1]]; ``sizes`` int64 [N, 2], height and width
of each.
"""

import json
import os
import weakref
from pathlib import Path

import torch
from torch import Tensor

from pipeline.data.formats.image_files import ImageFiles
from pipeline.data.formats.lazy_images import LazyImages
from pipeline.data.formats.prefetch import prefetch
from pipeline.events import emit
from pipeline.storage.atomic_files import atomic_file
from pipeline.storage.tensors import damaged, load_tensors

HEADER = 512  # bytes reserved for the header of safetensors
DEPTH = 64  # images that are read and shrunk ahead
REPORT = 10_000  # images between two lines of progress


class Pack:
    """The images of a file of `pack`, or those at ``rows``."""

    def __init__(self, path: Path, rows: Tensor | None = None) -> None:
        tensors = load_tensors(path)  # maps the file without reading the images
        self.path, self.file = path, os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.file)
        self.first = _offset(self.file, "bytes")
        if not _fit(tensors):
            raise damaged(path)
        offsets, sizes = tensors["offsets"], tensors["sizes"]
        self.rows = torch.arange(len(sizes)) if rows is None else rows
        self.starts, self.ends = (side[self.rows].numpy() for side in (offsets[:-1], offsets[1:]))
        self.sizes = sizes[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, row: int) -> bytes:
        """Return image ``row``; other threads run while the disk is read."""
        start, end = int(self.starts[row]), int(self.ends[row])
        return os.pread(self.file, end - start, self.first + start)

    def name(self, row: int) -> str:
        """Return the name of image ``row`` for messages."""
        return f"image {int(self.rows[row])} of {self.path}"

    def take(self, rows: Tensor) -> "Pack":
        """Return the images at ``rows``, int64 [M]."""
        return Pack(self.path, self.rows[rows])


def pack(path: Path, images: LazyImages[ImageFiles]) -> None:
    """Write ``images``, shrunk as `ImageFiles` describes; equal files give equal bytes.

    Raises:
        UserError: a file is not a readable image; the message names the first.
    """
    files, offsets, sizes = images.files, [0], []
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        file.write(bytes(HEADER))
        for blob, size in prefetch(files.packed, range(len(files)), DEPTH):
            file.write(blob)
            offsets.append(offsets[-1] + len(blob))
            sizes.append(size)
            if len(sizes) % REPORT == 0:
                emit(packed=len(sizes), of=len(files))
        padding = -offsets[-1] % 8  # int64 must be aligned to 8 bytes
        file.write(bytes(padding))
        tables = {"offsets": torch.tensor(offsets), "sizes": torch.tensor(sizes)}
        for table in tables.values():
            file.write(table.numpy().tobytes())
        file.seek(0)
        file.write(_header(offsets[-1] + padding, tables))


def unpack(path: Path, size: int) -> LazyImages[Pack]:
    """Return the images of a file of `pack`, as squares of ``size`` pixels.

    Raises:
        UserError: the file is missing, truncated or not of `pack`.
    """
    return LazyImages(Pack(path), size)


def _fit(tensors: dict[str, Tensor]) -> bool:
    """Say whether ``tensors`` are those of `pack`: every image lies in the bytes."""
    if not {"bytes", "offsets", "sizes"} <= tensors.keys():
        return False
    data, offsets, sizes = (tensors[name] for name in ("bytes", "offsets", "sizes"))
    types = (data.dtype, offsets.dtype, sizes.dtype) == (torch.uint8, torch.int64, torch.int64)
    shapes = (data.ndim, offsets.ndim) == (1, 1) and sizes.shape == (len(offsets) - 1, 2)
    if not (types and shapes) or (len(sizes) and int(sizes.min()) < 1):
        return False
    rising = bool((offsets.diff() >= 0).all())
    return rising and int(offsets[0]) == 0 and int(offsets[-1]) <= len(data)


def _header(total: int, tables: dict[str, Tensor]) -> bytes:
    entries = {"bytes": {"dtype": "U8", "shape": [total], "data_offsets": [0, total]}}
    for name, table in tables.items():
        end = total + table.nbytes
        entries[name] = {"dtype": "I64", "shape": [*table.shape], "data_offsets": [total, end]}
        total = end
    return (HEADER - 8).to_bytes(8, "little") + json.dumps(entries).encode().ljust(HEADER - 8)


def _offset(file: int, name: str) -> int:
    """Return the offset of the tensor ``name`` in an open safetensors file."""
    length = int.from_bytes(os.pread(file, 8, 0), "little")
    entries = json.loads(os.pread(file, length, 8))
    return 8 + length + int(entries[name]["data_offsets"][0])
