"""IMP-RePrune: the average of independently pruned models, which must be pruned once more.

Their masks have diverged, so the average keeps a weight wherever one of them does and is denser
than they are: average, then prune (pipeline.prune.apply.prune) back to the sparsity. The paper
compares with Yin et al.'s CIA and CAA too, which, as we read them, differ in what a pruned weight
counts as:

    cia  connectivity-independent: a zero, so the average is the mean, and a weight that few models
         keep is pulled towards zero and is pruned first
    caa  connectivity-aware: nothing, so the average of each weight is over the models that keep it

Yin et al.'s code (github.com/luuyin/Sup-tickets) averages the tickets of one training run one by
one, zeros counted, and prunes after each by global magnitude; here the m runs are there at once.
"""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from pipeline.averaging import check, mean
from pipeline.storage.checkpoint import Checkpoint

AVERAGES = ("cia", "caa")


def average_union(
    runs: Sequence[Checkpoint], names: Sequence[str], average: str = "cia"
) -> Checkpoint:
    """Return the average of models whose masks differ, with the union of their masks.

        cia: w = (w_1 + ... + w_m) / m        caa: w = (w_1 + ... + w_m) / |{i : mask_i keeps w}|

    A run that has no mask for a weight keeps it; what no mask covers is averaged over all runs.
    Where whole filters are gone, masks cover biases and BatchNorm too, which caa averages alike.

    Args:
        runs: pruned models; they are not changed.
        names: the prunable weights in model order (pipeline.prune.prunable.prunable).
        average: one of `AVERAGES`.

    Raises:
        UserError: no run, or runs with other keys, shapes or dtypes.

    Source: Sparse Model Soups, section 3.1 (IMP-RePrune); Yin et al. 2022b (Sup-tickets).
    """
    check(runs, masks=False)
    state, union = mean([each.state for each in runs]), {}
    for name in dict.fromkeys(name for each in runs for name in each.masks):
        masks = [each.masks.get(name, torch.ones_like(state[name]).bool()) for each in runs]
        if name in names:
            union[name] = reduce(torch.logical_or, masks)
        if average == "caa":
            state[name] = _mean_of_kept([each.state[name] for each in runs], masks)
    return Checkpoint(state, union, runs[0].meta)


def _mean_of_kept(weights: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
    total = torch.stack([weight.double() for weight in weights]).sum(0)
    keepers = torch.stack(list(masks)).sum(0)
    return (total / keepers.clamp(min=1)).to(weights[0].dtype)
