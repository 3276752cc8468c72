"""Random allocation: pruned weights are drawn uniformly, a baseline for the criteria."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.prune.topk import pruned_count


def masks(
    scores: Mapping[str, Tensor], sparsity: float, alive: Mapping[str, Tensor], seed: int
) -> dict[str, Tensor]:
    """Return the masks that prune exactly floor(s * n + 1/2) of all n weights, drawn at random.

    Of the weights not pruned yet, every set of the right size is equally likely, whatever the
    scores and layers. Equal seeds give equal draws. Arguments, result and errors are those of the
    global allocation.

    Source: the usual baseline, as in Gale et al. 2019 and Blalock et al. 2020.
    """
    kept = torch.cat([alive[name].reshape(-1) for name in scores])
    positions = kept.nonzero().view(-1)
    count = pruned_count(sparsity, alive) - (len(kept) - len(positions))
    order = torch.randperm(len(positions), generator=torch.Generator().manual_seed(seed))
    kept[positions[order[:count]]] = False
    parts = torch.split(kept, [score.numel() for score in scores.values()])
    return {
        name: part.view(score.shape)
        for (name, score), part in zip(scores.items(), parts, strict=True)
    }
