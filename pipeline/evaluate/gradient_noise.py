"""Gradient noise: how much the gradients of batches differ from their mean."""

from collections.abc import Iterable

import torch
from torch import Tensor


def gradient_noise(gradients: Iterable[Tensor]) -> tuple[float, float]:
    """Return the trace of the batch gradients' covariance, and the squared norm of their mean.

        tr C = 1 / (B - 1) sum_b ||g_b - g||^2,    g = 1 / B sum_b g_b

    Computed in one pass (Welford 1962), so that one gradient and the mean are in memory.

    Args:
        gradients: g_b, float64 [n], of B >= 2 batches of equal size.

    Source: Welford 1962; McCandlish et al. 2018, An empirical model of large-batch training,
        Section 2.2 (tr(Sigma) for batches instead of examples).
    """
    mean, squares, count = torch.zeros(()), 0.0, 0
    for count, each in enumerate(gradients, start=1):
        before = each - mean
        mean = mean + before / count
        squares += float(before @ (each - mean))
    if count < 2:
        raise ValueError("gradient noise needs at least two batches")
    return squares / (count - 1), float(mean.square().sum())
