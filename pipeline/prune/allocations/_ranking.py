"""One ranking of all layers' scores in float64, by the number of weights that each layer keeps."""

from collections.abc import Mapping

import torch
from torch import Tensor


def count_smallest(ranked: Mapping[str, Tensor], k: int) -> dict[str, int]:
    """Return how many of the k smallest of all scores lie in each layer.

    Args:
        ranked: each layer's scores in ascending order.
        k: from 0 to the number of all scores.
    """
    if k == 0:
        return dict.fromkeys(ranked, 0)
    threshold = torch.cat(list(ranked.values())).kthvalue(k).values
    below = {name: int(torch.searchsorted(each, threshold)) for name, each in ranked.items()}
    ties = k - sum(below.values())
    counts = {}
    for name, each in ranked.items():
        equal = int(torch.searchsorted(each, threshold, right=True)) - below[name]
        counts[name] = below[name] + min(ties, equal)
        ties -= min(ties, equal)
    return counts
