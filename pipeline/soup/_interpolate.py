"""Interpolation coefficients between two networks, and the loss barrier along the segment.

A point of the segment is (1 - a) w_1 + a w_2 (pipeline.averaging.weighted_sum), a in [0, 1].
"""

from collections.abc import Sequence

from pipeline.errors import UserError


def grid(points: int) -> list[float]:
    """Return ``points`` equidistant coefficients a = 0, ..., 1.

    Raises:
        UserError: fewer than three points, which are only the two ends.
    """
    if points < 3:
        raise UserError(f"points is {points}: give at least 3, two of which are the ends.")
    return [index / (points - 1) for index in range(points)]


def barrier(coefficients: Sequence[float], losses: Sequence[float]) -> float:
    """Return max_a [ L(a) - ((1 - a) L(0) + a L(1)) ], the largest excess over the chord.

    It is at least 0, since the ends lie on the chord.

    Args:
        coefficients: a, rising from 0 to 1.
        losses: L(a), a loss or an error, at each.

    Source: Frankle et al. 2020, section 2 (error barrier), with the ends' mean replaced by the
        chord, as Entezari et al. 2022, Definition 1.
    """
    start, end = losses[0], losses[-1]
    return max(
        loss - ((1 - a) * start + a * end) for a, loss in zip(coefficients, losses, strict=True)
    )
