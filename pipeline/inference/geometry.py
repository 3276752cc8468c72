"""Geometry of a convolution: where each kept weight reads, and the tiles that are computed.

Ways to read the input:

    rows      a tile is a part of an output row; full blocks, stride 1 or 2
    flat      a tile is any part of the plane, the padding between rows included, whose outputs a
              mask sets to 0; stride 1, equal rows of input and output
    gathered  the input is first split into stride x stride phases with the rows of the output
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pipeline.inference.layout import LINE, Layout, odd_lines
from pipeline.inference.operations import Operation

Ints = npt.NDArray[np.int32]
NARROW = 5  # full blocks of images up to this wide are computed flat


@dataclass(frozen=True)
class Kernel:
    """Size and steps of a convolution, each (vertical, horizontal)."""

    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def reach(self) -> tuple[int, int]:
        """The last row and column of a window."""
        return tuple((k - 1) * d for k, d in zip(self.size, self.dilation, strict=True))  # type: ignore[return-value]

    def phases(self) -> list[tuple[int, int]]:
        """Return the phases (row, column modulo stride) that the weights read."""
        (kh, kw), (sy, sx), (dy, dx) = self.size, self.stride, self.dilation
        return sorted({(y * dy % sy, x * dx % sx) for y in range(kh) for x in range(kw)})

    def pads(self, block: int, single: bool, same: bool) -> int:
        """Return the padding that the layouts of input and output need."""
        if block == LINE or single or same:
            return max(self.padding)
        return self.reach[1] // self.stride[1]


def kernel_of(operation: Operation) -> Kernel:
    """Return the geometry of a convolution."""
    kh, kw = operation.arrays["weight"].shape[2:]
    settings = operation.settings
    stride, padding, dilation = (tuple(settings[k]) for k in ("stride", "padding", "dilation"))
    return Kernel((kh, kw), stride, padding, dilation)


@dataclass(frozen=True)
class Reading:
    """Places and strides by which a convolution reads its input.

    Args:
        gathered: whether phases are made first.
        start: place, in floats, that weight (0, 0, 0) reads for output (0, 0).
        taps: [kh, kw], places of the weights of one channel from there, in floats.
        plane: floats from one input channel to the next.
        row: floats from one output row to the next, in the input.
        column: floats from one output column to the next, in the input.
        step: stride within a tile.
        flat: whether tiles pass over the ends of rows.
    """

    gathered: bool
    start: int
    taps: npt.NDArray[np.int64]
    plane: int
    row: int
    column: int
    step: int
    flat: bool
    phase_plane: int = 0
    phase_rows: int = 0
    phase_pitch: int = 0


def reading(kernel: Kernel, source: Layout, target: Layout, *, dense: bool = False) -> Reading:
    """Return how ``kernel`` reads ``source`` to compute ``target``, sparsely or densely."""
    full, (sy, sx) = source.block == LINE, kernel.stride
    single = target.height == target.width == 1
    same = (sy, sx) == (1, 1) and (source.width, source.height) == (target.width, target.height)
    even = same and source.pitch == target.pitch
    if single or (full and sx <= 2) or even:
        flat = even and not single and (not full or (target.width <= NARROW and not dense))
        ys, xs = (np.arange(k) * d for k, d in zip(kernel.size, kernel.dilation, strict=True))
        places = (ys[:, None] * source.pitch + xs) * source.block
        start = source.at(-kernel.padding[0], -kernel.padding[1])
        row, column = sy * source.pitch * source.block, sx * source.block
        return Reading(False, start, places, source.plane, row, column, 1 if single else sx, flat)
    return _gathered(kernel, source, target, full)


def _gathered(kernel: Kernel, source: Layout, target: Layout, full: bool) -> Reading:
    (sy, sx), block, phases = kernel.stride, source.block, kernel.phases()
    down, right = (r // s for r, s in zip(kernel.reach, kernel.stride, strict=True))
    pitch = target.width + right if full else target.pitch
    rows = target.height + down
    plane = odd_lines(rows * pitch * block + (0 if full else LINE))
    ys, xs = (np.arange(k) * d for k, d in zip(kernel.size, kernel.dilation, strict=True))
    phase = np.array([[phases.index((int(y % sy), int(x % sx))) for x in xs] for y in ys])
    places = phase * plane + ((ys[:, None] // sy) * pitch + xs // sx) * block
    return Reading(
        *(True, 0, places, plane * len(phases), pitch * block, block, 1, not full),
        phase_plane=plane,
        phase_rows=rows,
        phase_pitch=pitch,
    )


def tiles(read: Reading, target: Layout, vector: int, most: int) -> tuple[Ints, Ints | None]:
    """Return the tiles, int32 [n, 3]: start in the input and in the output, vectors; and the mask.

    Args:
        read: of the convolution.
        target: the output's layout.
        vector: floats of a vector.
        most: vectors of a tile at most.
    """
    block, out = target.block, target.at(0, 0)
    height, width = target.height, target.width
    if not read.flat and block == LINE:
        per = block // vector
        edges = _split(width, max(1, most // per))
        rows = [
            (read.start + y * read.row + a * read.column, target.at(y, a), (b - a) * per)
            for y in range(height)
            for a, b in edges
        ]
        return np.array(rows, np.int32), None
    floats = ((height - 1) * target.pitch + width) * block
    edges = _split(-(-floats // vector), most)
    rows = [(read.start + a * vector, out + a * vector, b - a) for a, b in edges]
    pixels = np.zeros(-(-floats // vector) * vector, np.int32)
    position = np.arange(floats) // block
    pixels[:floats] = np.where(position % target.pitch < width, -1, 0)
    return np.array(rows, np.int32), None if pixels.all() else pixels


def _split(total: int, most: int) -> list[tuple[int, int]]:
    """Return the fewest parts of ``total`` of at most ``most``, of nearly equal size."""
    parts = -(-total // most)
    edges = [i * total // parts for i in range(parts + 1)]
    return list(pairwise(edges))
