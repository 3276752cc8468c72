"""Rounding is exact in decimals, halves up."""

from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rounding import exact, round_fraction


@given(st.decimals("0", "1", places=4), st.integers(0, 10**9))
def test_share_is_decimal_rounding_half_up(fraction: Decimal, total: int) -> None:
    expected = (fraction * total).to_integral_value(ROUND_HALF_UP)
    assert round_fraction(float(fraction), total) == expected


@pytest.mark.parametrize(
    ("fraction", "total", "expected"),
    [(0.145, 100, 15), (0.5, 1, 1), (0.98, 50, 49), (1e-05, 10**6, 10), (1 / 3, 300, 100)],
)
def test_share_by_hand(fraction: float, total: int, expected: int) -> None:
    assert round_fraction(fraction, total) == expected


def test_exact_is_what_prints() -> None:
    assert float(exact(0.1) * exact(0.1)) == 0.01
