"""The straight line between two networks, and the barrier of the loss along it."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from pipeline.errors import UserError


def grid(points: int) -> list[float]:
    """Return ``points`` shares a = 0, ..., 1 at equal distances.

    Raises:
        UserError: fewer than three, which would leave out the way between.
    """
    if points < 3:
        raise UserError(f"points is {points}: give at least 3, two of which are the ends.")
    return [index / (points - 1) for index in range(points)]


def between(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], a: float
) -> dict[str, Tensor]:
    """Return (1 - a) w_1 + a w_2, tensor by tensor, in float64 and cast back.

    A weight is 0 on the whole way where it is 0 at both ends, so that candidates of one mask keep
    it. Integer buffers are the first one's; BatchNorm's statistics must be re-estimated.

    Args:
        first: the state dict at a = 0.
        second: the state dict at a = 1, of equal keys, shapes and dtypes.
        a: the share of the second, in [0, 1].
    """
    return {
        name: ((1 - a) * one.double() + a * second[name].double()).to(one.dtype)
        if one.is_floating_point()
        else one
        for name, one in first.items()
    }


def barrier(shares: Sequence[float], values: Sequence[float]) -> float:
    """Return max_a [ L(a) - ((1 - a) L(0) + a L(1)) ], the height above the line between the ends.

    It is 0 where the loss lies nowhere above that line, for the ends lie on it.

    Args:
        shares: a, rising from 0 to 1.
        values: L(a), a loss or an error, at each.

    Source: Frankle et al. 2020, section 2 (error barrier), with the ends' mean replaced by the
        line between them, as Entezari et al. 2022, Definition 1.
    """
    start, end = values[0], values[-1]
    return max(value - ((1 - a) * start + a * end) for a, value in zip(shares, values, strict=True))
