"""Proportional allocation: kept weights by shares, within limits, to an exact total."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import floor

from torch import Tensor

from pipeline.prune.topk import prune_smallest


@dataclass(frozen=True)
class Layer:
    """Share and limits of the weights that a layer keeps.

    Args:
        share: a_l > 0; layers keep weights in proportion to it.
        low: the fewest weights that the layer keeps.
        high: the most weights that it keeps: those not pruned yet.
    """

    share: int
    low: int
    high: int

    def kept(self, factor: Fraction) -> Fraction:
        """Return min(max(x * a_l, low), high) for a factor x."""
        return min(max(factor * self.share, Fraction(self.low)), Fraction(self.high))


def kept_counts(layers: Mapping[str, Layer], total: int) -> dict[str, Fraction]:
    """Return the number of weights that each layer keeps, before rounding.

        keep_l = min(max(x * a_l, low_l), high_l)    with x such that the sum over l is the total

    The sum grows with x and is linear between those x at which a layer reaches a limit, so x is
    exact. Where a limit binds, the other layers compensate; a layer that is sparser than its share
    already is such a case (high_l).

    Args:
        layers: by name, in model order.
        total: the number of weights kept, from the sum of low to the sum of high.
    """

    def level(factor: Fraction) -> Fraction:
        return sum((layer.kept(factor) for layer in layers.values()), Fraction(0))

    limits = ((layer.share, end) for layer in layers.values() for end in (layer.low, layer.high))
    corners = sorted({Fraction(end, share) for share, end in limits})
    above = bisect_left(corners, Fraction(total), key=level)
    factor = corners[above]
    if above and level(factor) > total:
        before = corners[above - 1]
        slope = (level(factor) - level(before)) / (factor - before)
        factor = before + (total - level(before)) / slope
    return {name: layer.kept(factor) for name, layer in layers.items()}


def round_to_total(shares: Mapping[str, Fraction], total: int) -> dict[str, int]:
    """Return the shares rounded to whole numbers, each by less than 1, that sum to ``total``.

    All shares are rounded down, and the missing units go to the largest remainders, one each;
    among equal remainders to the earlier layer. ``total`` must be the sum of the shares.
    """
    counts = {name: floor(share) for name, share in shares.items()}
    order = sorted(shares, key=lambda name: counts[name] - shares[name])
    for name in order[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def masks(
    scores: Mapping[str, Tensor], counts: Mapping[str, int], alive: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return masks that keep the ``counts[name]`` largest of the scores in each layer."""
    result: dict[str, Tensor] = {}
    for name, score in scores.items():
        pruned = score.numel() - counts[name]
        result |= prune_smallest({name: score}, pruned, {name: alive[name]})
    return result
