"""Kept weights in the order in which the kernels read them, and the choice of chunks and tiles."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.inference.geometry import Ints, Reading
from pipeline.inference.layout import LINE
from pipeline.inference.operations import Floats

ENTRY = np.dtype([("offset", np.int32), ("weight", np.float32)])
GROUP = 4  # outputs of the dense kernel
GROUP_ENTRY = np.dtype([("offset", np.int32), ("weight", np.float32, GROUP)])
CACHE = 32 * 1024  # bytes of a tile's input that stay in the first level of the cache
RUN = 12  # kept weights of an output that one chunk of channels should have
MOST = {16: 28, 8: 12, 4: 12}  # vectors of a tile, by the floats of a vector
MOST_DENSE = {16: 6, 8: 2, 4: 4}


@dataclass(frozen=True)
class Tuning:
    """Channels of a chunk and vectors of a tile."""

    channels: int
    most: int


def tuning(weight: Floats, read: Reading, width: int, vector: int, dense: bool) -> Tuning:
    """Return the tuning of a layer.

    Each tile reads its input once for every output, so chunks of channels are chosen whose input
    stays in the cache, but of no fewer than 12 kept weights an output, because the sums of each
    chunk are stored and loaded. Where tiles are parts of rows, they are at least 8 pixels long.
    """
    _, channels, kh, kw = weight.shape
    most = (MOST_DENSE if dense else MOST)[vector]
    density = 1.0 if dense else max(np.count_nonzero(weight) / weight.size, 1e-6)
    least = 4.0 if dense else max(8.0, RUN / (density * kh * kw))
    cache = 4 * CACHE if dense else CACHE  # four outputs share a loaded vector
    if read.flat:
        bytes_ = 4 * min(read.plane, most * vector + int(read.taps.max()))
        return Tuning(_even(channels, max(least, cache / bytes_)), most)
    line, per, reach = 4 * LINE * kh, LINE // vector, kw - 1
    fits = int((cache / (line * min(least, channels)) - reach) / read.step)
    pixels = min(width, most // per, max(fits, 8))
    bytes_ = line * (pixels * read.step + reach)
    return Tuning(_even(channels, max(least, cache / bytes_)), max(pixels, 1) * per)


def _even(channels: int, chunk: float) -> int:
    """Return the channels of each of about channels / chunk equal chunks."""
    return -(-channels // max(1, round(channels / min(chunk, channels))))


def sparse_rows(
    weight: Floats, groups: int, read: Reading, chunk: int
) -> tuple[npt.NDArray[np.void], Ints, int]:
    """Return the kept weights, ordered by chunk, output and place, the first of each; and chunks.

    Args:
        weight: [outputs, channels of a group, kh, kw].
        groups: of the convolution.
        read: places of the weights.
        chunk: input channels of a chunk.
    """
    outputs, width = weight.shape[:2]
    output, channel, y, x = np.nonzero(weight)
    channel = channel + output // (outputs // groups) * width
    chunks = -(-width * groups // chunk)
    offset = _checked(4 * (channel * read.plane + read.taps[y, x]))
    row = channel // chunk * outputs + output
    order = np.lexsort((offset, row))
    entries = np.empty(len(order), ENTRY)
    entries["offset"] = offset[order]
    entries["weight"] = weight[output, channel % width, y, x][order]
    return entries, _starts(row, chunks * outputs), chunks


def dense_rows(weight: Floats, read: Reading, chunk: int) -> tuple[npt.NDArray[np.void], Ints, int]:
    """Return all weights for groups of 4 outputs, as `sparse_rows` does; one group of channels."""
    outputs, channels, kh, kw = weight.shape
    groups, chunks = -(-outputs // GROUP), -(-channels // chunk)
    padded = np.zeros((groups * GROUP, channels, kh, kw), np.float32)
    padded[:outputs] = weight
    taps = read.taps[None] + np.arange(channels)[:, None, None] * read.plane
    weights = padded.reshape(groups, GROUP, channels, kh * kw).transpose(0, 2, 3, 1)
    entries, row = [], []
    for c in range(chunks):
        part = slice(c * chunk, (c + 1) * chunk)
        for g in range(groups):
            block = np.empty(taps[part].size, GROUP_ENTRY)
            block["offset"] = _checked(4 * taps[part].reshape(-1))
            block["weight"] = weights[g, part].reshape(-1, GROUP)
            entries.append(block)
            row.append(np.full(len(block), c * groups + g))
    return np.concatenate(entries), _starts(np.concatenate(row), chunks * groups), chunks


def _checked(offset: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return ``offset``, in bytes, which the kernels read as int32."""
    if offset.max(initial=0) >= 2**31:
        raise UserError(
            "a layer's input takes more than 2 GiB for a block of images, which the kernels cannot "
            "address: compile the network for smaller images."
        )
    return offset


def _starts(row: npt.NDArray[np.int64], rows: int) -> Ints:
    counts = np.bincount(row, minlength=rows)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
