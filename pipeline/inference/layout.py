"""Layout of activations: `[channel][position][image]`, positions in rows with shared padding.

With a padding of p pixels a row has W + p positions: the p zeros at its end are those before the
next row too. Pixel (y, x) has position p + (y + p) * (W + p) + x, for y and x from -p.
"""

from dataclasses import dataclass

LINE = 16  # floats of a cache line, and images of a full block


@dataclass(frozen=True)
class Layout:
    """Memory of one value: float32 `[channels][plane]`, a plane: `[position][block]` and slack.

    A plane has an odd number of cache lines, so that the same pixel of many channels does not fall
    into the same few places of the cache. In a block of fewer than 16 images vectors reach up to 15
    floats beyond the last pixel, into the slack.
    """

    channels: int
    height: int
    width: int
    pad: int
    block: int

    @property
    def pitch(self) -> int:
        """Positions from one row to the next."""
        return self.width + self.pad

    @property
    def plane(self) -> int:
        """Floats from one channel to the next."""
        positions = self.pad + (self.height + 2 * self.pad) * self.pitch
        return odd_lines(positions * self.block + (0 if self.block == LINE else LINE))

    @property
    def size(self) -> int:
        """Floats of all channels."""
        return self.channels * self.plane

    def at(self, y: int, x: int) -> int:
        """Return the place of pixel (y, x) of channel 0, in floats."""
        return (self.pad + (y + self.pad) * self.pitch + x) * self.block


def odd_lines(floats: int) -> int:
    """Return ``floats`` rounded up to an odd number of cache lines."""
    return (-(-floats // LINE) | 1) * LINE
