"""Robustness: accuracy on corrupted images, by corruption and severity."""

from collections.abc import Callable
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.evaluate.corruptions.base import CorruptedSet
from pipeline.evaluate.corruptions.constants import NAMES_15, NAMES_19, SEVERITIES
from pipeline.evaluate.metrics import check_finite
from pipeline.evaluate.partial_results import PartialResults
from pipeline.events import emit
from pipeline.train.placement import to_device

Predict = Callable[[Tensor], Tensor]


def robustness(
    predict: Predict, corrupted: CorruptedSet, cells: PartialResults | None = None
) -> dict[str, Any]:
    """Return a network's accuracy for each corruption and severity, and the means.

    Args:
        predict: from images, uint8 [B, C, H, W] on the CPU, to logits, float [B, K] on any device.
        corrupted: the test set under all 19 corruptions, or the main 15.
        cells: results known already, which are not computed again; new results are added to it.

    Returns:
        ``by_corruption`` {name: five accuracies, by severity}; ``mean_15`` and ``mean_19``, the
        means over all severities of the 15 main corruptions and of all 19 (the paper does not
        say which it uses), the latter only if all 19 exist; ``images``, the number of images of
        each cell; ``synthetic`` and ``about`` of the corrupted set.

    Raises:
        UserError: the set has a label outside the network's classes.

    Source: paper, Appendix B.2.3, Figures 7 and 8, Tables 13 and 14; Hendrycks & Dietterich 2019.
    """
    cells = cells or PartialResults()
    all_cells = [(name, severity) for name in corrupted.names for severity in SEVERITIES]
    for done, cell in enumerate(all_cells, start=1):
        if cell not in cells:
            cells.add(cell, *_tally(predict, corrupted, cell))
            emit(corruption=cell[0], severity=cell[1], done=done, of=len(all_cells))
    by_corruption = {
        name: [cells.accuracy((name, severity)) for severity in SEVERITIES]
        for name in corrupted.names
    }
    means = {
        f"mean_{len(names)}": fmean(fmean(by_corruption[name]) for name in names)
        for names in (NAMES_15, NAMES_19)
        if set(names) <= by_corruption.keys()
    }
    return {
        "by_corruption": by_corruption,
        **means,
        "images": cells.images(all_cells[0]),
        "synthetic": corrupted.synthetic,
        "about": corrupted.about,
    }


def _tally(predict: Predict, corrupted: CorruptedSet, cell: tuple[str, int]) -> tuple[int, int]:
    """Return how many images of a cell are classified correctly, and how many there are.

    Threads prepare the next batches while the device computes; its counts are read once.
    """
    counts, images_seen = [], 0
    for images, labels in corrupted.batches(*cell):
        logits = predict(images)
        if labels.max() >= logits.shape[1]:
            raise UserError(
                f"the corruption set has the label {labels.max()}, but the network only "
                f"{logits.shape[1]} classes: set evaluate.corruptions_path to the set of the "
                "same data."
            )
        correct = (logits.argmax(1) == to_device(labels, logits.device)).sum()
        counts.append(torch.stack([correct, logits.isfinite().all().long()]))
        images_seen += len(labels)
    totals = torch.stack(counts).cpu()
    check_finite(finite=bool(totals[:, 1].all()))
    return int(totals[:, 0].sum()), images_seen
