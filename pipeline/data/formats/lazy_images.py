"""Compressed images with the interface of a tensor of pixels, for sets larger than memory."""

from collections.abc import Iterable, Iterator
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from pipeline.data.formats.images import crop_and_resize, evaluation_square, readable
from pipeline.data.formats.prefetch import prefetch

Rows = Tensor | slice
Chunk = tuple[Tensor, int, list[int], Tensor | None]  # pixels of a batch, first place, rows, crops
CHUNK = 8  # images that a thread decodes at once
CPU = torch.device("cpu")
DEPTH = 64  # chunks that are decoded ahead: 77 MB at 224 pixels


class Images(Protocol):
    """The common interface of a tensor of examples [N, ...] and compressed images."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def ndim(self) -> int: ...  # noqa: D102
    @property
    def dtype(self) -> torch.dtype: ...  # noqa: D102
    @property
    def device(self) -> torch.device: ...  # noqa: D102
    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any, /) -> Tensor: ...
    def to(self, device: torch.device, /) -> "Images": ...  # noqa: D102
    def split(self, size: int, /) -> Iterable[Tensor]: ...  # noqa: D102


class Files(Protocol):
    """A sequence of compressed images."""

    def __len__(self) -> int: ...
    def read(self, row: int) -> bytes: ...  # noqa: D102
    def name(self, row: int) -> str: ...  # noqa: D102
    def take(self, rows: Tensor) -> Self: ...  # noqa: D102


F = TypeVar("F", bound=Files)


class LazyImages(Generic[F]):
    """N images of any size, decoded to uint8 [N, 3, size, size] squares when they are used.

    The square is that of torchvision's usual evaluation: short side resized to 8/7 ``size`` (256
    for 224), bilinear with antialiasing, then the centre.
    """

    dtype, ndim, device = torch.uint8, 4, CPU

    def __init__(self, files: F, size: int) -> None:
        self.files, self.size = files, size

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the decoded tensor."""
        return len(self), 3, self.size, self.size

    def __getitem__(self, rows: Rows, /) -> Tensor:
        """Return the squares of ``rows``, uint8 [M, 3, size, size], all decoded at once."""
        return next(self.decoded([(rows, None)]))

    def take(self, rows: Tensor) -> "LazyImages[F]":
        """Return the images at ``rows``, int64 [M], still compressed."""
        return LazyImages(self.files.take(rows), self.size)

    def to(self, device: torch.device, /) -> "LazyImages[F]":  # noqa: ARG002
        """Return itself: only decoded batches are sent to a device."""
        return self

    def split(self, size: int, /) -> Iterator[Tensor]:
        """Yield the squares of all images in order, ``size`` at a time."""
        starts = range(0, len(self), size)
        return self.decoded((slice(start, start + size), None) for start in starts)

    def decoded(
        self,
        batches: Iterable[tuple[Rows, Tensor | None]],
        device: torch.device = CPU,
    ) -> Iterator[Tensor]:
        """Yield the images of each batch, uint8 [M, 3, size, size] channels last, decoded ahead.

        Args:
            batches: rows, and the part of each image that is resized to the square, int64 [M, 5]:
                top, left, height, width, and 1 if it is mirrored; None is the evaluation square.
            device: of the result; copied to a GPU from page-locked memory, while it computes.
        """
        chunks = self._chunks(batches, pinned=device.type == "cuda")
        # Results come in order: with the last chunk of a batch, all of it is decoded.
        for pixels in prefetch(self._fill, chunks, DEPTH):
            if pixels is not None:
                yield pixels.permute(0, 3, 1, 2).to(device, non_blocking=True)

    def _chunks(
        self, batches: Iterable[tuple[Rows, Tensor | None]], *, pinned: bool
    ) -> Iterator[Chunk]:
        """Yield the chunks of all batches, and a tensor for the pixels of each batch."""
        for rows, crops in batches:
            if isinstance(rows, slice):
                numbers = list(range(*rows.indices(len(self))))
            else:
                numbers = rows.tolist()
            shape = len(numbers), self.size, self.size, 3
            pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
            for start in range(0, max(len(numbers), 1), CHUNK):
                yield pixels, start, numbers, crops

    def _fill(self, chunk: Chunk) -> Tensor | None:
        """Decode a chunk into its batch; return the batch for its last chunk."""
        out, start, numbers, crops = chunk
        pixels = out.numpy()
        end = min(start + CHUNK, len(numbers))
        for place in range(start, end):
            with readable(self.files.name(numbers[place])):
                blob = self.files.read(numbers[place])
                if crops is None:
                    pixels[place] = evaluation_square(blob, self.size)
                else:
                    pixels[place] = crop_and_resize(blob, crops[place].tolist(), self.size)
        return out if end == len(numbers) else None
