"""Lottery Pools: a ticket interpolated with tickets of other sparsities (Yin et al., 2023)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from pipeline.averaging import weighted_sum
from pipeline.prune.reprune import average_union
from pipeline.storage.checkpoint import Checkpoint

COEFFICIENTS = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)  # a_j, of the better one


@dataclass(frozen=True)
class Interpolated:
    """The ticket after the search, and for each ticket of the pool a dict: a, score, accepted."""

    checkpoint: Checkpoint
    trials: tuple[dict[str, Any], ...]


def interpolate(
    ticket: Checkpoint,
    pool: Sequence[Checkpoint],
    names: Sequence[str],
    *,
    prune: Callable[[Checkpoint], Checkpoint],
    score: Callable[[Checkpoint], float],
    ticket_score: float,
) -> Interpolated:
    """Return ``ticket`` interpolated with those of ``pool`` that do not lower the score.

        best <- ticket
        for each w in the pool:  a* = argmax_j score(P(a_j best + (1 - a_j) w))
                                 best <- P(a* best + (1 - a*) w)  if it scores at least as high

    P prunes by magnitude to the ticket's sparsity; before it the union of both masks is kept. Of
    equal scores the largest a wins, the point nearest to the best one.

    Args:
        ticket: of the sparsity that the result has.
        pool: trained networks of other sparsities, nearest first; the dense network may be one.
        names: the prunable weights in model order (pipeline.prune.prunable.prunable).
        prune: P.
        score: on the validation split, BatchNorm re-estimated first; higher is better.
        ticket_score: the ticket's own score.

    Raises:
        UserError: tickets with other keys, shapes or dtypes.

    Source: Yin et al. 2023, Algorithm 2; the coefficients are those of their CIFAR experiments.
    """
    best, highest = ticket, ticket_score
    trials: list[dict[str, Any]] = []
    for other in pool:
        masks = average_union([best, other], names).masks
        mixtures = ((a, weighted_sum([best.state, other.state], [a, 1 - a])) for a in COEFFICIENTS)
        points = ((a, prune(Checkpoint(state, masks, ticket.meta))) for a, state in mixtures)
        scored = ((score(point), a, point) for a, point in points)
        value, a, point = max(scored, key=itemgetter(0))  # the first of equal ones
        accepted = value >= highest
        trials.append({"a": a, "val_score": value, "accepted": accepted})
        if accepted:
            highest, best = value, point
    return Interpolated(best, tuple(trials))
