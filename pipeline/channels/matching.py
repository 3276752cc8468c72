"""Weight matching: permute one network's channels to minimise its distance to another network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pipeline.channels.permutation_spec import PermutationSpec
from pipeline.channels.permute import permuted

State = Mapping[str, Tensor]
MIN_GAIN = 1e-12  # of the first network's squared norm; a smaller gain is rounding


@dataclass(frozen=True)
class Matching:
    """The order of the second network's channels, and the agreement reached.

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

    This maximises the agreement  sum_l <W_l^first, pi(W_l^second)>.  For one group of channels,
    with all others fixed, it is a linear assignment problem: maximise sum_i S[i, pi(i)], where
    S[i, j] is the inner product of all weights into and out of channel i of the first and channel
    j of the second network. Groups are solved in random order until a sweep improves none. A
    permutation is applied only if it raises the agreement, which therefore never falls.

    Args:
        first: state dict of the reference.
        second: state dict of the same architecture, which is permuted.
        spec: the groups of channels of that architecture.
        parameters: names of the weights to match, without BatchNorm's statistics.
        seed: of the order of the groups.

    Source: Ainsworth et al. 2023, Git Re-Basin, Algorithm 1.
    """
    names = [name for name in parameters if name in spec.axes]
    one = {name: first[name].double() for name in names}
    two = {name: second[name].double() for name in names}
    order = {group: torch.arange(size) for group, size in spec.sizes.items()}
    generator = torch.Generator().manual_seed(seed)
    agreement = [_agreement(one, two)]
    min_gain = MIN_GAIN * sum(float(weight.square().sum()) for weight in one.values())
    improved = True
    while improved:
        improved = False
        for index in torch.randperm(len(order), generator=generator).tolist():
            group = list(order)[index]
            move = _assignment(one, two, spec, group)
            touched = [name for name in names if group in spec.axes[name]]
            moved = permuted({name: two[name] for name in touched}, spec, {group: move})
            gain = _agreement(one, moved) - _agreement(one, {name: two[name] for name in touched})
            if gain > min_gain:
                two |= moved
                order[group] = order[group][move]
                agreement.append(agreement[-1] + gain)
                improved = True
    return Matching(order, tuple(agreement))


def _agreement(one: State, two: State) -> float:
    return sum(float((one[name] * weight).sum()) for name, weight in two.items())


def _assignment(one: State, two: State, spec: PermutationSpec, group: str) -> Tensor:
    """Return the best permutation of ``group`` with the other groups as they are in ``two``."""
    size = spec.sizes[group]
    similarity = torch.zeros(size, size, dtype=torch.float64)
    for name in two:
        for axis, other in enumerate(spec.axes[name]):
            if other == group:
                rows = one[name].movedim(axis, 0).reshape(size, -1)
                columns = two[name].movedim(axis, 0).reshape(size, -1)
                similarity += rows @ columns.T
    return torch.from_numpy(linear_sum_assignment(similarity.numpy(), maximize=True)[1])
