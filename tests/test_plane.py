"""The plane through three networks: places, weighted sums, and the stage's direct evaluation."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.averaging import weighted_sum
from pipeline.errors import UserError
from pipeline.soup._plane import corners, grid, weights


def vectors(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(3, 7, dtype=torch.float64, generator=generator))


def distances(points: list[torch.Tensor]) -> list[float]:
    first, second, third = points
    return [float((a - b).norm()) for a, b in ((first, second), (first, third), (second, third))]


@given(seed=st.integers(0, 2**20), x=st.floats(-2, 3), y=st.floats(-2, 3))
def test_a_place_is_a_step_along_gram_schmidts_basis(seed, x, y):
    """w_1 + x u + y v with the orthonormal u, v of Garipov et al. 2018."""
    w1, w2, w3 = vectors(seed)
    u = (w2 - w1) / (w2 - w1).norm()
    v = (w3 - w1) - ((w3 - w1) @ u) * u
    assume(v.norm() > 0.1)
    v /= v.norm()
    triangle = corners(*distances([w1, w2, w3]))
    share = weights((x, y), triangle)
    assert sum(share) == pytest.approx(1)
    point = weighted_sum([{"w": w} for w in (w1, w2, w3)], share)["w"]
    assert torch.allclose(point, w1 + x * u + y * v, atol=1e-8)
    for corner, unit in zip(triangle, torch.eye(3).tolist(), strict=True):
        assert weights(corner, triangle) == pytest.approx(unit, abs=1e-9)


def test_places_have_the_distances_of_the_networks():
    points = vectors(0)
    places = [torch.tensor(place, dtype=torch.float64) for place in corners(*distances(points))]
    assert distances(places) == pytest.approx(distances(points))
    mean = torch.stack(places).mean(0)
    assert weights(tuple(mean.tolist()), [tuple(p.tolist()) for p in places]) == pytest.approx(
        (1 / 3, 1 / 3, 1 / 3)
    )


def test_a_grid_reaches_beyond_the_triangle_by_its_margin():
    xs, ys = grid([(0, 0), (4, 0), (1, 2)], 3, 0.25)
    assert (xs, ys) == ([-1, 2, 5], [-0.5, 1, 2.5])
    with pytest.raises(UserError, match="points is 1, but must be at least 2"):
        grid([(0, 0), (4, 0), (1, 2)], 1, 0.25)


@pytest.mark.parametrize("lengths", [(1, 2, 1), (0, 1, 1), (0, 0, 0)])
def test_three_networks_on_a_line_are_refused(lengths):
    with pytest.raises(UserError, match="lie on one line"):
        corners(*lengths)
