"""The mean of models, tensor by tensor, and the check that they have one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.storage.checkpoint import Checkpoint


def mean(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of equal-keyed state dicts: summed in float64, cast back to their dtype.

    Integer buffers (BatchNorm's batch counter) have no mean: the first one's are taken.
    """
    ones = [1.0] * len(states)
    return {name: _sum((state[name] for state in states), ones, len(states)) for name in states[0]}


def weighted_sum(
    states: Sequence[Mapping[str, Tensor]], weights: Sequence[float]
) -> dict[str, Tensor]:
    """Return the sum of equal-keyed state dicts times ``weights``; otherwise as `mean`."""
    return {name: _sum((state[name] for state in states), weights) for name in states[0]}


def check(candidates: Sequence[Checkpoint], *, masks: bool = True) -> None:
    """Refuse candidates that do not fit the first one, naming the first key that does not.

    Raises:
        UserError: no candidate, or other keys, shapes, dtypes or (where asked) masks.
    """
    if not candidates:
        raise UserError("an average needs at least one candidate: set m to 1 or more.")
    first = candidates[0]
    for number, other in enumerate(candidates[1:], start=1):
        found = _difference(first.state, other.state, "tensor", _alike)
        if masks and not found:
            found = _difference(first.masks, other.masks, "mask", torch.equal)
        if found:
            raise UserError(
                f"candidates 0 and {number} differ in the {found}: average only candidates "
                "that were retrained from one parent."
            )


def check_parent(parent: Checkpoint, candidate: Checkpoint) -> None:
    """Refuse a pruned parent that is not ``candidate``'s, naming the first key that differs.

    Raises:
        UserError: other keys, shapes, dtypes or masks.
    """
    found = _difference(candidate.state, parent.state, "tensor", _alike)
    found = found or _difference(candidate.masks, parent.masks, "mask", torch.equal)
    if found:
        raise UserError(
            f"the parent and candidate 0 differ in the {found}: give the pruned model that the "
            "candidates were retrained from."
        )


def _sum(tensors: Iterable[Tensor], weights: Sequence[float], divisor: int = 1) -> Tensor:
    """Return sum_i w_i t_i / d; one tensor after the other is taken, so that few are in memory."""
    left = iter(tensors)
    first = next(left)
    if not first.is_floating_point():
        return first
    total = torch.zeros_like(first, dtype=torch.float64)
    for tensor, weight in zip(chain([first], left), weights, strict=True):
        total += weight * tensor.double()
    return (total / divisor).to(first.dtype)


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype


def _difference(
    first: Mapping[str, Tensor],
    other: Mapping[str, Tensor],
    what: str,
    same: Callable[[Tensor, Tensor], bool],
) -> str:
    for name in [*first, *other]:
        if name not in first or name not in other or not same(first[name], other[name]):
            return f"{what} {name!r}"
    return ""
