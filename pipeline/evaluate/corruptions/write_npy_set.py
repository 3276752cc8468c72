"""Writes a generated corrupted set in CIFAR-C's layout (npy_set.py)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from pipeline.evaluate.corruptions.constants import NAMES_19, SEVERITIES
from pipeline.events import emit
from pipeline.storage.atomic_files import write_json

Images = NDArray[np.uint8]


def save_set(
    folder: Path,
    corrupt: Callable[[str, int], Images],
    labels: NDArray[np.int64],
    meta: Mapping[str, Any],
    names: Sequence[str] = NAMES_19,
) -> None:
    """Write a generated set into ``folder``, one corruption and severity in memory at a time.

    Args:
        folder: an empty or new folder; the caller makes it atomic.
        corrupt: (corruption, severity) -> images, uint8 [N, H, W, C].
        labels: int64 [N], of the clean images.
        meta: entries of meta.json besides ``synthetic``.
        names: the corruptions to write.
    """
    folder.mkdir(parents=True, exist_ok=True)
    n = len(labels)
    for done, name in enumerate(names, start=1):
        file: np.memmap[Any, np.dtype[np.uint8]] | None = None
        for severity in SEVERITIES:
            images = corrupt(name, severity)
            if file is None:
                shape = (n * len(SEVERITIES), *images.shape[1:])
                file = open_memmap(folder / f"{name}.npy", "w+", dtype=np.uint8, shape=shape)
            file[(severity - 1) * n : severity * n] = images
        if file is not None:
            file.flush()
        emit(corruption=name, done=done, of=len(names))
    np.save(folder / "labels.npy", np.tile(labels, len(SEVERITIES)))
    write_json(folder / "meta.json", {**meta, "synthetic": True})
