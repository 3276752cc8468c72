"""Exact selection of the largest scores among tens of millions, without sorting them.

The bits of non-negative floats, read as integers, are in the order of the floats. So two
histograms of 65,536 bins, over the high and then the low half of the bits, find the k-th
smallest score exactly: O(n) time, and no memory beyond one integer a weight.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.rounding import round_fraction

HALF = 16  # bits
BINS = 1 << HALF


def keep_largest(
    scores: Mapping[str, Tensor], sparsity: float, alive: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return masks that are False at the k smallest of all n scores, k = floor(s * n + 1/2).

    Weights that are no longer alive rank below every score, so masks nest from phase to phase.
    Ties: among equal scores the earlier position is pruned first, positions being counted
    through the tensors in the order given and row by row within one.

    Args:
        scores: float32, non-negative, no NaN, any shapes.
        sparsity: s, a fraction in [0, 1].
        alive: bool, the scores' names and shapes, True where a weight still stands.

    Returns:
        bool masks, True where a weight is kept.

    Raises:
        UserError: more than k weights are pruned already.
    """
    return prune_smallest(scores, pruned_count(sparsity, alive), alive)


def pruned_count(sparsity: float, alive: Mapping[str, Tensor]) -> int:
    """Return k = floor(s * n + 1/2), how many of the n weights are pruned at a sparsity of s.

    Raises:
        UserError: more than k weights are pruned already.
    """
    total = sum(mask.numel() for mask in alive.values())
    pruned = round_fraction(sparsity, total)
    dead = total - sum(int(mask.count_nonzero()) for mask in alive.values())
    if dead > pruned:
        where = next(iter(alive)) if len(alive) == 1 else "the model"
        raise UserError(
            f"a sparsity of {sparsity:g} is asked for but {where} already has {dead / total:g}, "
            "and what is pruned stays pruned: raise the target sparsity."
        )
    return pruned


def prune_smallest(
    scores: Mapping[str, Tensor], pruned: int, alive: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the masks of `keep_largest` for a count, which is no less than what is pruned."""
    keys = {name: _key(score, alive[name]) for name, score in scores.items()}
    threshold, ties = _rank(keys.values(), pruned)
    masks = {}
    for name, key in keys.items():
        mask = key >= threshold
        if ties:
            equal = (key == threshold).view(-1).nonzero().view(-1)[:ties]
            mask.view(-1)[equal] = False
            ties -= len(equal)
        masks[name] = mask
    return masks


def _key(score: Tensor, alive: Tensor) -> Tensor:
    """Return int32 keys in the order of the scores: 0 where dead, at least 1 where alive."""
    return (score.contiguous().view(torch.int32) + 1).masked_fill_(~alive, 0)


def _rank(keys: Iterable[Tensor], k: int) -> tuple[int, int]:
    """Return the k-th smallest key (k counts from 1) and how many keys equal to it are pruned."""
    if k == 0:
        return 0, 0
    keys = list(keys)
    high, k = _bin(keys, lambda key: key >> HALF, k)
    low, k = _bin(keys, lambda key: key[(key >> HALF) == high] & (BINS - 1), k)
    return (high << HALF) + low, k


def _bin(keys: Iterable[Tensor], part: Callable[[Tensor], Tensor], k: int) -> tuple[int, int]:
    """Return the bin of ``part`` that holds the k-th smallest, and its rank within that bin."""
    counts = [torch.bincount(part(key).view(-1), minlength=BINS) for key in keys]
    total = torch.stack(counts).sum(0)  # on the device of the keys
    below = total.cumsum(0)
    index = int(torch.searchsorted(below, k))
    return index, k - int(below[index] - total[index])
