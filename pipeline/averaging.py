"""Averages of models, tensor by tensor, and the checks that models can be averaged."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.storage.checkpoint import Checkpoint


def mean(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of equal-keyed state dicts: summed in float64, cast back to their dtype.

    Integer buffers (BatchNorm's batch counter) are those of the first.
    """
    ones = [1.0] * len(states)
    return {name: _sum((state[name] for state in states), ones, len(states)) for name in states[0]}


def weighted_sum(
    states: Sequence[Mapping[str, Tensor]], weights: Sequence[float]
) -> dict[str, Tensor]:
    """Return the sum of equal-keyed state dicts times ``weights``, in the precision of `mean`."""
    return {name: _sum((state[name] for state in states), weights) for name in states[0]}


def check(candidates: Sequence[Checkpoint], *, masks: bool = True) -> None:
    """Check that all candidates have the first's keys, shapes, dtypes and, by default, masks.

    Raises:
        UserError: no candidate, or a difference; the message names its key.
    """
    if not candidates:
        raise UserError("there is no model to average: pass at least one candidate.")
    first = candidates[0]
    for number, other in enumerate(candidates[1:], start=1):
        difference = _difference(first, other, masks=masks) or _measured_otherwise(first, other)
        if difference:
            raise UserError(
                f"candidates 0 and {number} differ in the {difference}: average only candidates "
                "that were retrained from one parent."
            )


def _measured_otherwise(first: Checkpoint, other: Checkpoint) -> str:
    """Return what the metadata say differently of how the networks are measured."""
    keys = ("precision", "augmentation")
    return next((key for key in keys if first.meta.get(key) != other.meta.get(key)), "")


def check_parent(parent: Checkpoint, candidate: Checkpoint) -> None:
    """Check that ``candidate`` was retrained from ``parent``: equal keys, shapes, dtypes and masks.

    Raises:
        UserError: a difference; the message names its key.
    """
    difference = _difference(candidate, parent, masks=True)
    if difference:
        raise UserError(
            f"the parent and candidate 0 differ in the {difference}: give the pruned model that "
            "the candidates were retrained from."
        )


def check_soup(soup: Checkpoint, candidate: Checkpoint, rule: str) -> None:
    """Check that the ``soup`` of the merge rule ``rule`` is a network like ``candidate``.

    Raises:
        UserError: other keys, shapes, dtypes, masks or metadata; a value that is not finite; or a
            pruned weight that is not 0. The message names the tensor.
    """
    difference = _difference(candidate, soup, masks=True)
    if not difference and soup.meta != candidate.meta:
        difference = "metadata"
    if difference:
        raise UserError(
            f"merge: the soup of {rule} differs from its candidates in the {difference}: it must "
            "have the tensors' names, shapes and dtypes, the masks and the metadata of the first."
        )
    for name, tensor in soup.state.items():
        if not tensor.isfinite().all():
            raise UserError(
                f"merge: the soup of {rule} has NaN or infinity in {name!r}: correct the rule."
            )
        if name in soup.masks and tensor[~soup.masks[name]].any():
            raise UserError(
                f"merge: the soup of {rule} has pruned weights of {name!r} that are not 0: it must "
                "keep the candidates' masks."
            )


def _sum(tensors: Iterable[Tensor], weights: Sequence[float], divisor: int = 1) -> Tensor:
    """Return sum_i w_i t_i / d; tensors are read one after the other, to keep few in memory."""
    rest = iter(tensors)
    first = next(rest)
    if not first.is_floating_point():
        return first
    total = torch.zeros_like(first, dtype=torch.float64)
    for tensor, weight in zip(chain([first], rest), weights, strict=True):
        total += weight * tensor.double()
    return (total / divisor).to(first.dtype)


def _difference(first: Checkpoint, other: Checkpoint, *, masks: bool) -> str:
    """Return "tensor 'NAME'" or "mask 'NAME'" for the first difference, "" if there is none."""
    name = _first_difference(first.state, other.state, _same_layout)
    if name is not None:
        return f"tensor {name!r}"
    name = _first_difference(first.masks, other.masks, torch.equal) if masks else None
    return "" if name is None else f"mask {name!r}"


def _first_difference(
    first: Mapping[str, Tensor],
    other: Mapping[str, Tensor],
    same: Callable[[Tensor, Tensor], bool],
) -> str | None:
    for name in dict.fromkeys([*first, *other]):
        if name not in first or name not in other or not same(first[name], other[name]):
            return name
    return None


def _same_layout(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype
