"""How well predicted regions cover the true ones: pure functions of a confusion matrix [K, K].

Row k, column j counts the positions of class k that were predicted as j.
"""

import torch
from torch import Tensor


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return how often each class was predicted for each, int64 [N, K, K], one matrix an example.

    Args:
        predicted: int64 [N, ...] in 0..K-1.
        labels: int64 [N, ...]; positions with a negative label are left out.
        classes: K.
    """
    count = len(labels)
    example = torch.arange(count, device=labels.device).view(-1, *[1] * (labels.ndim - 1))
    cell = (example * classes + labels) * classes + predicted
    last = count * classes * classes  # where those that are left out are counted
    cell = torch.where(labels >= 0, cell, last).flatten()
    cells = torch.zeros(last + 1, dtype=torch.int64, device=labels.device)
    cells.scatter_add_(0, cell, torch.ones_like(cell))  # unlike bincount, without a look at it
    return cells[:last].view(count, classes, classes)


def iou(confusion: Tensor) -> Tensor:
    """Return the intersection over union of each class, float64 [..., K].

        IoU_k = C_kk / (sum_j C_kj + sum_j C_jk - C_kk)

    It is NaN for a class that is neither in the truth nor in the prediction.
    Arguments: confusion, counts [..., K, K]. Source: Everingham et al. 2015, Section 4.
    """
    counts = confusion.double()
    both = counts.diagonal(dim1=-2, dim2=-1)
    return both / (counts.sum(-1) + counts.sum(-2) - both)


def mean_iou(confusion: Tensor) -> Tensor:
    """Return the mean of `iou` over the classes that are in the truth or the prediction [...]."""
    return iou(confusion).nanmean(-1)
