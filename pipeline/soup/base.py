"""Soup: one model from m candidates that share a mask, at the cost of one.

Every candidate was retrained under its parent's mask, so a weighted sum of candidates is zero
wherever all of them are, and sparsity is preserved. BatchNorm's statistics depend on the weights
and must be re-estimated for every soup that is scored; merge rules only combine tensors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pipeline.averaging import weighted_sum
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


def weighted_average(candidates: Sequence[Checkpoint], weights: Sequence[float]) -> Checkpoint:
    """Return sum_i weights_i theta_i under the candidates' common mask."""
    first = candidates[0]
    state = weighted_sum([each.state for each in candidates], weights)
    return Checkpoint(state, first.masks, first.meta)
