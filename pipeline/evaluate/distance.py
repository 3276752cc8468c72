"""Pairwise distances and angles of candidates in parameter space."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import atan2, degrees, sqrt

import torch
from torch import Tensor

from pipeline.errors import UserError

State = Mapping[str, Tensor]


def _squared(a: State, b: State, names: Sequence[str], scale: tuple[float, float]) -> float:
    """Return ||s_a a + s_b b||^2 over ``names`` in float64, one tensor at a time."""
    return sum(
        float((scale[0] * a[name].double() + scale[1] * b[name].double()).square().sum())
        for name in names
    )


def distances(states: Sequence[State], names: Sequence[str]) -> dict[str, float]:
    """Return the pairwise L2 distances and angles of candidates, as mean and maximum over pairs.

    d(a, b) = ||a - b||, angle(a, b) = 2 atan2(||u - v||, ||u + v||) with u = a / ||a||,
    v = b / ||b||: Kahan's form of arccos(u.v), which stays exact for nearly equal candidates.

    Args:
        states: at least two state dicts.
        names: the parameters to measure over, without buffers: BatchNorm's batch counter would
            outweigh every weight.

    Returns:
        ``l2_mean``, ``l2_max``, and ``angle_mean_degrees``, ``angle_max_degrees`` in [0, 180].

    Raises:
        UserError: there are fewer than two candidates, or one lacks a parameter.

    Source: paper, Table 18 (mean L2 distance between candidates).
    """
    if len(states) < 2:
        raise UserError("a distance needs at least two candidates: set m to 2 or more.")
    for index, state in enumerate(states):
        if missing := [name for name in names if name not in state]:
            raise UserError(f"candidate {index} has no parameter {missing[0]!r}: retrain it.")
    zero = torch.zeros(())
    zeros = dict.fromkeys(names, zero)
    norms = [sqrt(_squared(state, zeros, names, (1, 0))) or 1.0 for state in states]
    l2, angles = [], []
    for i, j in combinations(range(len(states)), 2):
        a, b, unit = states[i], states[j], (1 / norms[i], 1 / norms[j])
        l2.append(sqrt(_squared(a, b, names, (1, -1))))
        difference = sqrt(_squared(a, b, names, (unit[0], -unit[1])))
        total = sqrt(_squared(a, b, names, unit))
        angles.append(degrees(2 * atan2(difference, total)))
    return {
        "l2_mean": sum(l2) / len(l2),
        "l2_max": max(l2),
        "angle_mean_degrees": sum(angles) / len(angles),
        "angle_max_degrees": max(angles),
    }
