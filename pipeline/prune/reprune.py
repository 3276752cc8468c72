"""IMP-RePrune: the average of independently pruned models, pruned once more to their sparsity.

The masks differ, so the average keeps every weight that one of the models keeps and is denser than
each: average, then prune again (pipeline.prune.apply.prune). The paper also compares with the
averages CIA and CAA of Yin et al., which, as we read them, treat a pruned weight differently:

    cia  connectivity-independent: it counts as zero, so the average is the mean, and a weight that
         few models keep is drawn to zero and pruned first
    caa  connectivity-aware: it does not count, so a weight is averaged over the models that keep it

Yin et al.'s code (github.com/luuyin/Sup-tickets) averages the tickets of one training run one after
another, zeros counted, and prunes by global magnitude after each. Here all m runs are averaged at
once.
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

    A run without a mask for a weight keeps it; tensors without any mask are averaged over all runs.
    Where whole filters are pruned, masks cover biases and BatchNorm too, and caa applies to them.

    Args:
        runs: pruned models, left unchanged.
        names: the prunable weights in model order (pipeline.prune.prunable.prunable).
        average: one of `AVERAGES`.

    Raises:
        UserError: no run, or runs with different keys, shapes or dtypes.

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
