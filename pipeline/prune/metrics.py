"""Metrics of a pruning step: the drop of the norm, and the weights that are left."""

from collections.abc import Iterable, Mapping
from math import fsum, sqrt
from typing import Any

import numpy as np
from torch import Tensor


def norm_drop(
    parameters: Iterable[Tensor], before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> float:
    """Return r = sqrt(| ||W||^2 - ||W'||^2 |) / ||W||, the relative drop of the norm, in [0, 1].

    Pruning zeroes coordinates, so by Pythagoras the numerator is ||W - W'||. That form is
    computed, as it has no cancellation.

    Args:
        parameters: all of W, biases and normalisation included.
        before: the tensors of W that pruning changes, at least.
        after: the same tensors of W'.

    Source: Zimmer et al. 2023 (ALLR).
    """
    total = fsum(_squares(weight) for weight in parameters)
    lost = fsum(_squares(before[name] - after[name]) for name in before)
    return sqrt(lost / total) if total else 0.0


def count_metrics(
    weights: Mapping[str, Tensor], alive: Mapping[str, Tensor], kept: Mapping[str, int]
) -> dict[str, Any]:
    """Return the metrics of `prune` without norm_drop, from the kept weights of each layer.

    Args:
        weights: the prunable weights by name.
        alive: the masks before the pruning.
        kept: the number of weights that each layer keeps.
    """
    sizes = {name: weight.numel() for name, weight in weights.items()}
    total, kept_total = sum(sizes.values()), sum(kept.values())
    alive_total = sum(int(mask.count_nonzero()) for mask in alive.values())
    return {
        "sparsity": (total - kept_total) / total,
        "kept": kept_total,
        "prunable": total,
        "pruned_fraction": (alive_total - kept_total) / alive_total,
        "layers": {name: (sizes[name] - kept[name]) / sizes[name] for name in sizes},
        "dead_layers": [name for name in sizes if kept[name] == 0],
    }


def _squares(tensor: Tensor) -> float:
    # NumPy sums on one thread in a fixed order, so the bits do not depend on the thread count.
    return float(np.square(tensor.detach().contiguous().double().numpy()).sum())
