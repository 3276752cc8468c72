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

from pipeline.average import check, mean
from pipeline.checkpoint import Checkpoint

AVERAGES = ("cia", "caa")


def superpose(runs: Sequence[Checkpoint], names: Sequence[str], average: str = "cia") -> Checkpoint:
    """Return the average of models whose masks differ, with the union of their masks.

        cia: w = (w_1 + ... + w_m) / m        caa: w = (w_1 + ... + w_m) / |{i : mask_i keeps w}|

    Biases, normalisation and what else no mask covers are averaged over all runs either way.

    Args:
        runs: pruned models; they are not changed.
        names: the prunable weights in model order (pipeline.prune.parameters.prunable).
        average: one of `AVERAGES`.

    Raises:
        UserError: no run, or runs with other keys, shapes or dtypes.

    Source: Sparse Model Soups, section 3.1 (IMP-RePrune); Yin et al. 2022b (Sup-tickets).
    """
    check(runs, masks=False)
    masked = [name for name in names if all(name in each.masks for each in runs)]
    union = {name: reduce(torch.logical_or, (each.masks[name] for each in runs)) for name in masked}
    state = mean([each.state for each in runs])
    if average == "caa":
        state |= {name: _mean_of_kept(runs, name) for name in masked}
    return Checkpoint(state, union, runs[0].meta)


def _mean_of_kept(runs: Sequence[Checkpoint], name: str) -> Tensor:
    total = sum((each.state[name].double() for each in runs), torch.tensor(0.0).double())
    keepers = sum((each.masks[name].long() for each in runs), torch.tensor(0))
    return (total / keepers.clamp(min=1)).to(runs[0].state[name].dtype)
