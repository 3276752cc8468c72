"""Model soups: one model from m candidates that share a mask, at the cost of one.

Every candidate was retrained under its parent's mask, so the mean is zero exactly where they all
are: sparsity survives. What depends on the weights but is not learned by them (BatchNorm's
statistics) must be re-estimated afterwards; these functions only combine tensors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.average import check, mean
from pipeline.checkpoint import Checkpoint


@dataclass(frozen=True)
class Trial:
    """One step of a greedy soup: the candidate, the score of the soup with it, the verdict."""

    candidate: int
    val_accuracy: float
    accepted: bool


@dataclass(frozen=True)
class Soup:
    """A greedy soup: the mean of the candidates ``taken``, and the trials that chose them."""

    checkpoint: Checkpoint
    taken: tuple[int, ...]
    trials: tuple[Trial, ...]


def uniform(candidates: Sequence[Checkpoint]) -> Checkpoint:
    """Return the UniformSoup, the mean of all candidates under their common mask.

        theta = (theta_1 + ... + theta_m) / m

    Raises:
        UserError: no candidate, or candidates with other keys, shapes, dtypes or masks.

    Source: Sparse Model Soups, section 2.2; Wortsman et al. 2022a.
    """
    check(candidates)
    first = candidates[0]
    return Checkpoint(mean([each.state for each in candidates]), first.masks, first.meta)


def greedy(
    candidates: Sequence[Checkpoint],
    val_accuracies: Sequence[float],
    score: Callable[[Checkpoint], float],
) -> Soup:
    """Return the GreedySoup, the mean of those candidates that do not make it worse.

    From the best candidate down (equals by number), a candidate is taken if the soup of those
    taken so far and it scores at least as much as the soup of those taken so far.

    Args:
        candidates: numbered from 0 by their place.
        val_accuracies: each candidate's own score, a fraction in [0, 1].
        score: the validation accuracy of a soup, its BatchNorm re-estimated first; it is called
            m - 1 times and must not change what it is given.

    Raises:
        UserError: as `uniform`.
        ValueError: not one accuracy a candidate.

    Source: Sparse Model Soups, section 2.2; Wortsman et al. 2022a, Recipe 1.
    """
    check(candidates)
    if len(val_accuracies) != len(candidates):
        raise ValueError(f"{len(val_accuracies)} accuracies for {len(candidates)} candidates")
    order = sorted(range(len(candidates)), key=lambda number: -val_accuracies[number])
    taken, best = [order[0]], val_accuracies[order[0]]
    trials = [Trial(order[0], best, accepted=True)]
    for number in order[1:]:
        tried = sorted([*taken, number])
        accuracy = score(uniform([candidates[one] for one in tried]))
        accepted = accuracy >= best
        trials.append(Trial(number, accuracy, accepted))
        if accepted:
            taken, best = tried, accuracy
    return Soup(uniform([candidates[one] for one in taken]), tuple(taken), tuple(trials))
