"""Magnitude criterion: the score of a weight is its absolute value (Han et al. 2015)."""

from collections.abc import Mapping

from torch import Tensor


def scores(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return |w| for every weight.

    Args:
        weights: prunable weights by name, in model order, any floating dtype and shape.

    Returns:
        float32, non-negative, the same names and shapes; the smallest are pruned first.
    """
    return {name: weight.detach().abs().float() for name, weight in weights.items()}
