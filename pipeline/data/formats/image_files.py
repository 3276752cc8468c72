"""Image files in folders, read one at a time."""

import io
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from pipeline.data.formats.images import open_image, readable, resized, rgb

QUALITY = 90  # of the JPEG of shrunk images


class ImageFiles:
    """Image files in folders, to be packed with at most ``short`` pixels on the short side.

    Without a ``short`` the files are packed byte for byte.
    """

    def __init__(self, paths: Sequence[str], short: int | None = None) -> None:
        self.paths, self.short = paths, short

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, row: int) -> bytes:
        """Return the file of image ``row``."""
        return Path(self.paths[row]).read_bytes()

    def name(self, row: int) -> str:
        """Return the path of image ``row``."""
        return self.paths[row]

    def take(self, rows: Tensor) -> "ImageFiles":
        """Return the files at ``rows``, int64 [M]."""
        return ImageFiles([self.paths[row] for row in rows.tolist()], self.short)

    def packed(self, row: int) -> tuple[bytes, tuple[int, int]]:
        """Return image ``row`` as a file of the size to be packed, and its height and width.

        Raises:
            UserError: the file is not a readable image.
        """
        with readable(self.paths[row]):
            blob = self.read(row)
            image = rgb(open_image(blob))
        if self.short is not None and min(image.size) > self.short:
            image, buffer = resized(image, self.short), io.BytesIO()
            image.save(buffer, "JPEG", quality=QUALITY)
            blob = buffer.getvalue()
        return blob, (image.height, image.width)
