"""Soup: one model from m candidates that share a mask, at the cost of one.

Every candidate was retrained under its parent's mask, so a weighted sum of candidates is zero
wherever all of them are, and sparsity is preserved. BatchNorm's statistics depend on the weights
and must be re-estimated for every soup that is scored; merge rules only combine tensors.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from torch import Tensor

from pipeline.averaging import check_soup, weighted_sum
from pipeline.errors import UserError
from pipeline.storage.checkpoint import Checkpoint


@dataclass(frozen=True)
class Soup:
    """A merged model and its coefficients.

    Args:
        checkpoint: the model; its buffers are those of the weighted sum.
        weights: each candidate's coefficient, by its number.
        reason: one sentence on the choice of the coefficients.
        trials: the measurements that led to the choice, one JSON-able dict a trial.
        parent_weight: the pruned parent's coefficient; with it the coefficients sum to 1.
    """

    checkpoint: Checkpoint
    weights: tuple[float, ...]
    reason: str
    trials: tuple[dict[str, Any], ...] = ()
    parent_weight: float = 0.0

    @property
    def included(self) -> tuple[int, ...]:
        """The numbers of the candidates with a coefficient above 0."""
        return tuple(number for number, weight in enumerate(self.weights) if weight > 0)


@dataclass(frozen=True)
class Objective:
    """A loss on the validation split, as a function of the soup.

    Args:
        candidate_losses: the loss of each candidate.
        value: the loss of a soup; its BatchNorm is re-estimated first.
        gradient: from coefficients, float64 [m], and the number of a step to the derivatives [m]
            of the loss on that step's batch by the coefficients, up to a constant common to all.
    """

    candidate_losses: Sequence[float]
    value: Callable[[Checkpoint], float]
    gradient: Callable[[Tensor, int], Tensor]


def checked(soup: Any, candidates: Sequence[Checkpoint], rule: str) -> Soup:
    """Return what the merge rule ``rule``, perhaps in a file of the user's, made of ``candidates``.

    Raises:
        UserError: it is no `Soup`; it has no finite coefficient for each candidate, or trials that
            are no JSON; or its checkpoint does not fit (`pipeline.averaging.check_soup`).
    """
    if not isinstance(soup, Soup) or not _is_checkpoint(soup.checkpoint):
        kind = type(soup).__name__
        if isinstance(soup, Soup):
            kind = "a Soup whose checkpoint is no Checkpoint of tensors"
        raise UserError(
            f"merge: {rule} returns {kind}: it must return a pipeline.soup.base.Soup with the "
            "merged Checkpoint."
        )
    numbers = (*soup.weights, soup.parent_weight) if isinstance(soup.weights, tuple | list) else ()
    if len(numbers) != len(candidates) + 1 or not all(map(_is_finite, numbers)):
        raise UserError(
            f"merge: the soup of {rule} has the weights {soup.weights!r}: they must be "
            f"{len(candidates)} finite numbers, one for each candidate."
        )
    try:
        json.dumps(["" + soup.reason, *soup.trials], sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"merge: the soup of {rule} has a reason that is no text, or trials that are no JSON "
            f"({error}): use text, and dicts of finite numbers and text."
        ) from error
    check_soup(soup.checkpoint, candidates[0], rule)
    return soup


def _is_checkpoint(value: Any) -> bool:
    return isinstance(value, Checkpoint) and all(
        isinstance(part, Mapping) and all(isinstance(each, Tensor) for each in part.values())
        for part in (value.state, value.masks)
    )


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and isfinite(value)


def weighted_average(candidates: Sequence[Checkpoint], weights: Sequence[float]) -> Checkpoint:
    """Return sum_i weights_i theta_i under the candidates' common mask."""
    first = candidates[0]
    state = weighted_sum([each.state for each in candidates], weights)
    return Checkpoint(state, first.masks, first.meta)
