"""Confidence intervals of fractions of few examples: of a group, a mean of groups, a change."""

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist

CONFIDENCE = 0.95


def wilson_interval(fraction: float, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return Wilson's score interval of a ``fraction`` p of ``n`` examples.

    (p + z^2/2n -+ z sqrt(p (1 - p) / n + z^2/4n^2)) / (1 + z^2/n), z the normal quantile.

    Source: Wilson 1927, Probable Inference, the Law of Succession, and Statistical Inference.
    """
    z = _quantile(confidence)
    centre = fraction + z * z / (2 * n)
    half = z * sqrt(fraction * (1 - fraction) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low, high = (centre - half) / scale, (centre + half) / scale
    # Rounding must not break that the interval contains the fraction and lies in [0, 1].
    return max(0.0, min(fraction, low)), min(1.0, max(fraction, high))


def mean_interval(
    fractions: Sequence[float], counts: Sequence[int], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return an interval of the plain mean of K fractions p_k, of ``counts`` examples each.

    mean - sqrt(sum_k (p_k - l_k)^2) / K  to  mean + sqrt(sum_k (u_k - p_k)^2) / K, with Wilson's
    (l_k, u_k) of each fraction: the variance of each side comes from the interval, which unlike
    p (1 - p) / n is not 0 where all of a few examples are correct.

    Source: Zou & Donner 2008, Construction of Confidence Limits about Effect Measures (MOVER).
    """
    ends = [wilson_interval(p, n, confidence) for p, n in zip(fractions, counts, strict=True)]
    mean = sum(fractions) / len(fractions)
    below = sqrt(sum((p - low) ** 2 for p, (low, _) in zip(fractions, ends, strict=True)))
    above = sqrt(sum((high - p) ** 2 for p, (_, high) in zip(fractions, ends, strict=True)))
    return mean - below / len(fractions), mean + above / len(fractions)


def paired_interval(
    lost: float, gained: float, n: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return an interval of (lost - gained) / n, the change of an error rate on the same examples.

    With 1/2 added to each cell of the 2 x 2 table, b = lost + 1/2, c = gained + 1/2, N = n + 2:
    (b - c) / N -+ z sqrt(b + c - (b - c)^2 / N) / N, clipped to [-1, 1].

    Args:
        lost: number of examples that only the first network classifies correctly; a mean over
            networks is allowed.
        gained: number of examples that only the second network classifies correctly.
        n: number of all examples.
        confidence: of the interval.

    Source: Agresti & Min 2005, Simple Improved Confidence Intervals for Comparing Matched
    Proportions.
    """
    b, c, total = lost + 0.5, gained + 0.5, n + 2
    half = _quantile(confidence) * sqrt(b + c - (b - c) ** 2 / total)
    return max(-1.0, (b - c - half) / total), min(1.0, (b - c + half) / total)


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
