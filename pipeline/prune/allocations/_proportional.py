"""How many weights each layer keeps: one factor for all layers, limits for each, an exact total."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import floor

from torch import Tensor

from pipeline.prune.topk import prune_smallest


@dataclass(frozen=True)
class Layer:
    """What a layer may keep.

    Args:
        share: a_l > 0, what it keeps in proportion to the other layers.
        low: the fewest weights that it keeps.
        high: the most, which are those that still stand.
    """

    share: int
    low: int
    high: int

    def kept(self, factor: Fraction) -> Fraction:
        """Return min(max(x * a_l, low), high) for the factor x."""
        return min(max(factor * self.share, Fraction(self.low)), Fraction(self.high))


def kept_counts(layers: Mapping[str, Layer], total: int) -> dict[str, Fraction]:
    """Return how many weights each layer keeps, before rounding.

        keep_l = min(max(x * a_l, low_l), high_l)    with x such that the sum over l is the total

    The sum grows with x and is linear between the x at which a layer meets a limit, so x is found
    exactly. A layer that is sparser than its share already stays as it is (high_l), and the others
    make up for it, just as they do where a limit binds.

    Args:
        layers: by name, in model order.
        total: how many weights are kept, from the sum of low to the sum of high.
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
    """Return whole numbers that sum to ``total``, which is the sum of the shares, each within 1.

    All are rounded down, and what is missing goes to the largest remainders, one each; among equal
    remainders the earlier layer comes first.
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
