"""LAMP: one ranking of all weights, by magnitude within their layer (Lee et al. 2020)."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from pipeline.prune.allocations import _proportional
from pipeline.prune.allocations._ranking import count_smallest
from pipeline.prune.topk import pruned_count


def masks(
    scores: Mapping[str, Tensor], sparsity: float, alive: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the masks that prune exactly floor(s * n + 1/2) of all n weights, by LAMP score.

        lamp(u) = w_u^2 / sum of w_v^2 over all v of u's layer that are not smaller than u

    where |w| is the criterion's score. Within a layer LAMP ranks as |w| does, and the largest
    weight always scores 1: no layer is emptied while the total keeps at least one weight a layer.
    Ties: within a layer the earlier position counts as the smaller and is pruned first; among
    layers the earlier layer is pruned first. A weight of exactly 0 scores 0.
    Arguments, result and errors are those of the global allocation.

    Source: Lee et al. 2020, "Layer-adaptive sparsity for the magnitude-based pruning", equation 1.
    """
    pruned = pruned_count(sparsity, alive)
    ranked = {name: sorted_scores(score, alive[name]) for name, score in scores.items()}
    pruned_by_layer = count_smallest(ranked, pruned)
    counts = {name: len(each) - pruned_by_layer[name] for name, each in ranked.items()}
    return _proportional.masks(scores, counts, alive)


def sorted_scores(score: Tensor, alive: Tensor) -> Tensor:
    """Return the layer's LAMP scores in ascending order, float64; -1 for pruned weights."""
    magnitudes = score[alive].double().sort().values.numpy()
    squares = np.square(magnitudes)
    # Summed one by one from the largest down, so that rounding preserves the order.
    not_smaller = np.cumsum(squares[::-1])[::-1]
    lamp = np.divide(squares, not_smaller, out=np.zeros_like(squares), where=squares > 0)
    dead = np.full(score.numel() - len(magnitudes), -1.0)
    return torch.from_numpy(np.concatenate([dead, lamp]))
