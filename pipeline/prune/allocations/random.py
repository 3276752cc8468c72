"""Random: chance alone says which weights go; what a criterion is worth shows beside it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.prune.topk import pruned_count


def masks(
    scores: Mapping[str, Tensor], sparsity: float, alive: Mapping[str, Tensor], seed: int
) -> dict[str, Tensor]:
    """Return the masks that prune exactly floor(s * n + 1/2) of all n weights, drawn at random.

    Of the weights that still stand, every set of the right size is equally likely, whatever the
    scores and the layers are. Equal seeds draw equally. Arguments, result and errors are those of
    the global allocation.

    Source: the usual control, as in Gale et al. 2019 and Blalock et al. 2020.
    """
    kept = torch.cat([alive[name].reshape(-1) for name in scores])
    stands = kept.nonzero().view(-1)
    lost = pruned_count(sparsity, alive) - (len(kept) - len(stands))
    order = torch.randperm(len(stands), generator=torch.Generator().manual_seed(seed))
    kept[stands[order[:lost]]] = False
    parts = torch.split(kept, [score.numel() for score in scores.values()])
    return {
        name: part.view(score.shape)
        for (name, score), part in zip(scores.items(), parts, strict=True)
    }
