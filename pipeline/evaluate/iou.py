"""Intersection over union (IoU) from a confusion matrix C [K, K].

C_kj is the number of positions of class k that were predicted as class j.
"""

import torch
from torch import Tensor


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return one confusion matrix an example, int64 [N, K, K].

    Args:
        predicted: int64 [N, ...] in 0..K-1.
        labels: int64 [N, ...]; positions with a negative label are not counted.
        classes: K.
    """
    count = len(labels)
    example = torch.arange(count, device=labels.device).view(-1, *[1] * (labels.ndim - 1))
    cell = (example * classes + labels) * classes + predicted
    last = count * classes * classes  # the cell of positions that are not counted
    cell = torch.where(labels >= 0, cell, last).flatten()
    cells = torch.zeros(last + 1, dtype=torch.int64, device=labels.device)
    cells.scatter_add_(0, cell, torch.ones_like(cell))  # unlike bincount, without a wait for a GPU
    return cells[:last].view(count, classes, classes)


def iou(confusion: Tensor) -> Tensor:
    """Return the intersection over union of each class, float64 [..., K].

        IoU_k = C_kk / (sum_j C_kj + sum_j C_jk - C_kk)

    NaN for a class that is neither in the labels nor in the prediction.
    Arguments: confusion, counts [..., K, K]. Source: Everingham et al. 2015, Section 4.
    """
    counts = confusion.double()
    both = counts.diagonal(dim1=-2, dim2=-1)
    return both / (counts.sum(-1) + counts.sum(-2) - both)


def mean_iou(confusion: Tensor) -> Tensor:
    """Return the mean of `iou` over the classes in the labels or the prediction, [...]."""
    return iou(confusion).nanmean(-1)
