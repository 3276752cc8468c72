"""Latency: the most magnitude for the measured time on a CPU, with a share for every layer."""

from collections.abc import Mapping
from fractions import Fraction
from math import ceil, inf, sqrt

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.prune.allocations import _proportional
from pipeline.prune.allocations._costs import layer_costs
from pipeline.prune.allocations._ranking import count_smallest
from pipeline.prune.topk import pruned_count

__all__ = ["layer_costs", "masks"]

SHARE = Fraction(1, 2)  # of the uniform density, which every layer keeps; less ends in collapse


def masks(
    scores: Mapping[str, Tensor],
    sparsity: float,
    alive: Mapping[str, Tensor],
    costs: Mapping[str, float],
) -> dict[str, Tensor]:
    """Return the masks that prune exactly floor(s * n + 1/2) of all n weights, at the least cost.

        first, layer l keeps its ceil(SHARE * K / n * n_l) largest |w|, K = n - floor(s * n + 1/2)
        the others of the K kept weights are those with the largest w^2 / c_l of all layers

    Of all masks with these shares and at least the same sum of kept w^2, these have the least cost,
    the sum of c_l over kept weights. Proof: let M be these masks and t > 0 the least w^2 / c_l that
    the ranking keeps. Other masks M' may be taken to keep the largest of each layer, so weights in
    M only have w^2 >= t c_l, those in M' only w^2 <= t c_l, and
    sum(M) - sum(M') >= t (cost(M) - cost(M')): a sum that is no smaller costs no less.

    Without shares the first layers, whose weights cost most, would lose all of theirs. At equal
    costs, and where no share binds, the masks are the global allocation's.

    Args:
        scores: |w|, float32, as of the global allocation.
        sparsity: s, as there.
        alive: as there.
        costs: c_l > 0 by name, the time that one more kept weight of a layer takes, in any unit.

    Raises:
        UserError: more than s is pruned already, or K is too small for the shares.

    Source: the fractional knapsack (Dantzig 1957), with the costs of pipeline.inference.
    """
    pruned, total = pruned_count(sparsity, alive), sum(score.numel() for score in scores.values())
    kept = total - pruned
    lows = {
        name: min(int(mask.count_nonzero()), ceil(SHARE * kept * mask.numel() / total))
        for name, mask in alive.items()
    }
    if sum(lows.values()) > kept:
        raise UserError(
            f"a sparsity of {sparsity:g} leaves {kept} of {total} weights, but latency keeps "
            f"{sum(lows.values())}, at least one a layer: lower the target sparsity or choose "
            "another prune.allocation."
        )
    ranked = {
        name: _ranked(score, alive[name], costs[name], lows[name]) for name, score in scores.items()
    }
    gone = count_smallest(ranked, pruned)
    counts = {name: score.numel() - gone[name] for name, score in scores.items()}
    return _proportional.masks(scores, counts, alive)


def _ranked(score: Tensor, alive: Tensor, cost: float, low: int) -> Tensor:
    """Return |w| / sqrt(c_l) in ascending order, float64: pruned weights -1, the share inf."""
    known = score[alive].double().sort().values / sqrt(cost)
    known[len(known) - low :] = inf
    return torch.cat([known.new_full((score.numel() - len(known),), -1.0), known])
