"""Rounding of a fraction of a whole number: to the nearest, halves up, in exact decimals."""

from fractions import Fraction
from math import floor


def exact(value: float) -> Fraction:
    """Return the decimal that ``value`` prints as: 0.98 is 49/50, not the nearest binary float."""
    return Fraction(str(float(value)))


def round_half_up(value: Fraction) -> int:
    """Return floor(value + 1/2)."""
    return floor(value + Fraction(1, 2))


def round_fraction(fraction: float, total: int) -> int:
    """Return floor(fraction * total + 1/2), with the exact decimal that ``fraction`` prints as.

    In floats 0.145 * 100 is 14.499999999999998, which would round to 14; here it is 15.
    """
    return round_half_up(exact(fraction) * total)
