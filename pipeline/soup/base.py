"""What a merge rule returns, and what the rules share.

A soup is one model from m candidates that share a mask, at the cost of one. Every candidate was
retrained under its parent's mask, so any weighted sum of them is zero exactly where they all are:
sparsity survives. What depends on the weights but is not learned by them (BatchNorm's statistics)
must be re-estimated afterwards, for every soup that is scored; the rules only combine tensors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pipeline.averaging import weighted_sum
from pipeline.storage.checkpoint import Checkpoint


@dataclass(frozen=True)
class Soup:
    """A merged model, and how it came about.

    Args:
        checkpoint: the model; its buffers are those of the weighted sum.
        weights: each candidate's coefficient, by its number.
        reason: one sentence on what is included, and why.
        trials: what was measured on the way, one JSON-able dict a trial.
        parent_weight: the pruned parent's coefficient; with it the coefficients sum to 1.
    """

    checkpoint: Checkpoint
    weights: tuple[float, ...]
    reason: str
    trials: tuple[dict[str, Any], ...] = ()
    parent_weight: float = 0.0

    @property
    def included(self) -> tuple[int, ...]:
        """The candidates with a part in the soup."""
        return tuple(number for number, weight in enumerate(self.weights) if weight > 0)


@dataclass(frozen=True)
class Objective:
    """A loss on the validation split, as a function of the soup.

    Args:
        alone: each candidate's own loss.
        value: the loss of a soup, its BatchNorm re-estimated first.
        slopes: from coefficients, float64 [m], and the number of a step, the derivatives [m] of
            the loss of that step's batch by the coefficients, up to a constant common to all.
    """

    alone: Sequence[float]
    value: Callable[[Checkpoint], float]
    slopes: Callable[[Tensor, int], Tensor]


def mixture(candidates: Sequence[Checkpoint], weights: Sequence[float]) -> Checkpoint:
    """Return sum_i weights_i theta_i under the candidates' common mask."""
    first = candidates[0]
    state = weighted_sum([each.state for each in candidates], weights)
    return Checkpoint(state, first.masks, first.meta)
