"""Top-k selection: exact masks of the largest scores among tens of millions, without a sort.

The bits of a non-negative float, read as an integer, have the order of the floats, so the k-th
smallest score t is found exactly from the bits of the keys:

    CPU   two histograms of 65,536 bins, over the high and then the low half of the bits
    GPU   bit by bit from the highest: the bit of t is 1 if fewer than k keys lie below t with it.
          31 counts that stay on the GPU, so that the host does not wait for them

Both take O(n) time and give the same masks.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.rounding import round_fraction

KEY_BITS = 31  # of an int32 that is not negative
HALF = 16  # bits
BINS = 1 << HALF
CHUNK = 1 << 18  # keys that fit a processor's cache with their temporaries


def keep_largest(
    scores: Mapping[str, Tensor], sparsity: float, alive: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return masks that are False at the k smallest of all n scores, k = floor(s * n + 1/2).

    Weights that are no longer alive rank below every score, so masks nest from phase to phase.
    Ties: among equal scores the earlier position is pruned first, positions being counted
    through the tensors in the order given and row by row within one.

    Args:
        scores: float32, non-negative, no NaN, any shapes.
        sparsity: s, a fraction in [0, 1].
        alive: bool, the scores' names and shapes, True where a weight is not pruned yet; by
            default everywhere.

    Returns:
        bool masks, True where a weight is kept.

    Raises:
        UserError: more than k weights are pruned already.
    """
    if alive is None:
        pruned = round_fraction(sparsity, sum(score.numel() for score in scores.values()))
    else:
        pruned = pruned_count(sparsity, alive)
    return prune_smallest(scores, pruned, alive)


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
            f"the sparsity is {sparsity:g}, but {where} already has {dead / total:g}, and pruned "
            "weights stay pruned: raise the target sparsity."
        )
    return pruned


def prune_smallest(
    scores: Mapping[str, Tensor], pruned: int, alive: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return the masks of `keep_largest` for a count, at least the number pruned already."""
    # Keys in the order of the scores: 0 where dead, at least 1 where alive.
    values = torch.cat([score.reshape(-1) for score in scores.values()]).abs_()  # -0.0 is 0.0
    keys = values.view(torch.int32).add_(1)
    if alive is not None:
        keys.masked_fill_(~torch.cat([alive[name].reshape(-1) for name in scores]), 0)
    mask = _select_by_bits(keys, pruned) if keys.is_cuda else _select_by_histograms(keys, pruned)
    parts = torch.split(mask, [score.numel() for score in scores.values()])
    return {name: part.view(scores[name].shape) for name, part in zip(scores, parts, strict=True)}


def _select_by_bits(keys: Tensor, k: int) -> Tensor:
    """Return a mask that is False at the k smallest of the keys [n]; the host reads no number."""
    threshold = keys.new_zeros(())
    for bit in reversed(range(KEY_BITS)):
        higher = threshold + (1 << bit)
        threshold = torch.where((keys < higher).sum() < k, higher, threshold)
    ties = k - (keys < threshold).sum()  # how many keys equal to the threshold are pruned
    equal = keys == threshold
    return (keys > threshold) | (equal & (equal.cumsum(0) > ties))


def _select_by_histograms(keys: Tensor, k: int) -> Tensor:
    """Return the same mask by two histograms of the keys' bits."""
    if k == 0:
        return torch.ones_like(keys, dtype=torch.bool)
    chunks = torch.split(keys, CHUNK)
    high, ties = _bin((chunk >> HALF for chunk in chunks), k)
    low, ties = _bin((chunk[(chunk >> HALF) == high] & (BINS - 1) for chunk in chunks), ties)
    threshold = (high << HALF) + low
    mask = keys >= threshold
    mask[(keys == threshold).nonzero().view(-1)[:ties]] = False
    return mask


def _bin(parts: Iterable[Tensor], k: int) -> tuple[int, int]:
    """Return the value in [0, BINS) of the k-th smallest part, and its rank among those equal."""
    counts = torch.zeros(BINS, dtype=torch.int64)
    for part in parts:
        counts += torch.bincount(part, minlength=BINS)
    below = counts.cumsum(0)
    index = int(torch.searchsorted(below, k))
    return index, k - int(below[index] - counts[index])
