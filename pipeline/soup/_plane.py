"""The plane through three networks: its points as weighted sums, and their places in the plane.

Every point is (1 - a - b) w_1 + a w_2 + b w_3 (pipeline.averaging.weighted_sum). The places are
coordinates in weight space along an orthonormal basis: u from w_1 to w_2, and v orthogonal to it.

Source: Garipov et al. 2018, Loss surfaces, mode connectivity, and fast ensembling of DNNs, the
basis of their Figure 1.
"""

from collections.abc import Sequence
from math import sqrt

from pipeline.errors import UserError

Place = tuple[float, float]


def corners(d12: float, d13: float, d23: float) -> tuple[Place, Place, Place]:
    """Return the places of the three networks, from their L2 distances.

        P_1 = (0, 0),  P_2 = (d12, 0),  P_3 = (x, y),
        x = (d12^2 + d13^2 - d23^2) / (2 d12),  y = sqrt(d13^2 - x^2)

    Raises:
        UserError: the networks lie on one line, so that they span no plane.
    """
    if d12 > 0:
        x = (d12**2 + d13**2 - d23**2) / (2 * d12)
        height = d13**2 - x**2
        if height > (1e-6 * d12) ** 2:
            return (0.0, 0.0), (d12, 0.0), (x, sqrt(height))
    raise UserError(
        "the three networks lie on one line and span no plane: give candidates that differ."
    )


def weights(place: Place, triangle: Sequence[Place]) -> tuple[float, float, float]:
    """Return the coefficients (1 - a - b, a, b) of the point at ``place``; they sum to 1."""
    (x0, y0), (x1, _), (x2, y2) = triangle
    b = (place[1] - y0) / (y2 - y0)
    a = (place[0] - x0 - b * (x2 - x0)) / (x1 - x0)
    return 1 - a - b, a, b


def grid(triangle: Sequence[Place], points: int, margin: float) -> tuple[list[float], list[float]]:
    """Return ``points`` equidistant x and y around the triangle.

    Args:
        triangle: the three corners.
        points: of each side.
        margin: how far the grid reaches beyond the triangle, as a fraction of its width and height.

    Raises:
        UserError: fewer than two points.
    """
    if points < 2:
        raise UserError(f"points is {points}, but must be at least 2: give more points a side.")
    axes = []
    for values in zip(*triangle, strict=True):
        low, high = min(values), max(values)
        start, width = low - margin * (high - low), (1 + 2 * margin) * (high - low)
        axes.append([start + width * index / (points - 1) for index in range(points)])
    return axes[0], axes[1]
