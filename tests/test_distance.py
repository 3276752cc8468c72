"""Distances between candidates, against SciPy over the flattened parameters."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from scipy.spatial.distance import pdist
from torch import nn

from pipeline.errors import UserError
from pipeline.evaluate.distance import distances


def candidates(m, seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"conv.weight": (3, 2, 3, 3), "conv.bias": (3,), "scale": ()}
    return [
        {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        for _ in range(m)
    ]


@given(st.integers(2, 5), st.integers(0, 1000))
def test_lengths_and_angles_are_scipy_s(m, seed):
    states = candidates(m, seed)
    flat = np.stack([torch.cat([t.double().flatten() for t in s.values()]).numpy() for s in states])
    lengths = pdist(flat)
    angles = np.degrees(np.arccos(1 - pdist(flat, "cosine")))
    assert distances(states, list(states[0])) == {
        "l2_mean": pytest.approx(lengths.mean()),
        "l2_max": pytest.approx(lengths.max()),
        "angle_mean_degrees": pytest.approx(angles.mean()),
        "angle_max_degrees": pytest.approx(angles.max()),
    }


def test_by_hand():
    found = distances([{"w": torch.tensor([3.0, 0.0])}, {"w": torch.tensor([0.0, 4.0])}], ["w"])
    assert (found["l2_mean"], found["angle_mean_degrees"]) == (5.0, pytest.approx(90))


@given(st.integers(0, 1000))
def test_equal_candidates_are_exactly_together_and_opposite_ones_apart(seed):
    (state,) = candidates(1, seed)
    assert set(distances([state, dict(state)], list(state)).values()) == {0.0}
    opposite = {name: -tensor for name, tensor in state.items()}
    assert distances([state, opposite], list(state))["angle_max_degrees"] == pytest.approx(180)


@given(st.floats(1e-3, 1e3), st.integers(0, 100))
def test_angles_ignore_the_scale_and_lengths_follow_it(scale, seed):
    states = candidates(3, seed)
    names = list(states[0])
    scaled = [{name: scale * t.double() for name, t in state.items()} for state in states]
    before, after = distances(states, names), distances(scaled, names)
    assert after["l2_max"] == pytest.approx(scale * before["l2_max"])
    assert after["angle_max_degrees"] == pytest.approx(before["angle_max_degrees"])


def test_a_small_angle_is_not_lost_to_rounding():
    # arccos of the cosine sees nothing below 1e-8 radians; this angle is 1e-10.
    a, b = torch.tensor([1.0, 0.0]).double(), torch.tensor([1.0, 1e-10]).double()
    found = distances([{"w": a}, {"w": b}], ["w"])
    assert found["angle_mean_degrees"] == pytest.approx(np.degrees(1e-10), rel=1e-6)


def test_the_batch_counter_of_batchnorm_does_not_count():
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)) for _ in range(2)]
    names = [name for name, _ in models[0].named_parameters()]
    before = distances([model.state_dict() for model in models], names)
    models[0][1].num_batches_tracked.fill_(100_000)
    assert distances([model.state_dict() for model in models], names) == before
    swamped = distances([model.state_dict() for model in models], list(models[0].state_dict()))
    assert swamped["l2_max"] > 1000 * before["l2_max"]


def test_one_candidate_is_refused():
    with pytest.raises(UserError, match="at least two"):
        distances([{"w": torch.ones(1)}], ["w"])


def test_a_missing_parameter_is_named():
    with pytest.raises(UserError, match=r"candidate 1 .*'w'"):
        distances([{"w": torch.ones(1)}, {}], ["w"])
