"""Weight matching: the permutation of one network's channels that brings it closest to another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pipeline.channels.permutation_spec import PermutationSpec
from pipeline.channels.permute import permuted

State = Mapping[str, Tensor]
SMALLEST = 1e-12  # a gain below this share of the norms is rounding


@dataclass(frozen=True)
class Matching:
    """How the second network's channels move, and what that gained.

    Attributes:
        order: for each group, int64 [n]: channel i is the second network's channel order[i].
        agreement: the inner product of the two networks' weights, before and after each move.
    """

    order: dict[str, Tensor]
    agreement: tuple[float, ...]


def match(
    first: State, second: State, spec: PermutationSpec, parameters: Sequence[str], *, seed: int
) -> Matching:
    """Return the permutation pi of ``second`` that (locally) minimises || first - pi(second) ||.

    That is to maximise the agreement  sum_l <W_l^first, pi(W_l^second)>.  In one group of
    channels, with all others fixed, this is a linear assignment problem: maximise
    sum_i S[i, pi(i)], where S[i, j] is the inner product of all weights into and out of channel i
    of the first and channel j of the second network. Groups are solved in random order until a
    sweep improves none. A move is made only where it raises the agreement, so it never falls.

    Args:
        first: the state that stays.
        second: the state that moves, of the same network.
        spec: of that network.
        parameters: names of the weights that count; not BatchNorm's statistics.
        seed: of the order of the groups.

    Source: Ainsworth et al. 2023, Git Re-Basin, Algorithm 1.
    """
    names = [name for name in parameters if name in spec.axes]
    one = {name: first[name].double() for name in names}
    two = {name: second[name].double() for name in names}
    order = {group: torch.arange(size) for group, size in spec.sizes.items()}
    generator = torch.Generator().manual_seed(seed)
    agreement = [_agreement(one, two)]
    smallest = SMALLEST * sum(float(weight.square().sum()) for weight in one.values())
    improved = True
    while improved:
        improved = False
        for index in torch.randperm(len(order), generator=generator).tolist():
            group = list(order)[index]
            move = _assignment(one, two, spec, group)
            touched = [name for name in names if group in spec.axes[name]]
            moved = permuted({name: two[name] for name in touched}, spec, {group: move})
            gain = _agreement(one, moved) - _agreement(one, {name: two[name] for name in touched})
            if gain > smallest:
                two |= moved
                order[group] = order[group][move]
                agreement.append(agreement[-1] + gain)
                improved = True
    return Matching(order, tuple(agreement))


def _agreement(one: State, two: State) -> float:
    return sum(float((one[name] * weight).sum()) for name, weight in two.items())


def _assignment(one: State, two: State, spec: PermutationSpec, group: str) -> Tensor:
    """Return the best move of ``group`` while the other groups stay as they are in ``two``."""
    size = spec.sizes[group]
    similarity = torch.zeros(size, size, dtype=torch.float64)
    for name in two:
        for axis, other in enumerate(spec.axes[name]):
            if other == group:
                rows = one[name].movedim(axis, 0).reshape(size, -1)
                columns = two[name].movedim(axis, 0).reshape(size, -1)
                similarity += rows @ columns.T
    return torch.from_numpy(linear_sum_assignment(similarity.numpy(), maximize=True)[1])
