"""GreedySoup: the mean of the candidates that do not make it worse (Wortsman et al., 2022a)."""

from collections.abc import Callable, Sequence

from pipeline.averaging import check
from pipeline.soup.base import Soup
from pipeline.soup.uniform import average
from pipeline.storage.checkpoint import Checkpoint


def merge(
    candidates: Sequence[Checkpoint],
    *,
    scores: Sequence[float],
    score: Callable[[Checkpoint], float],
) -> Soup:
    """Return the GreedySoup, the mean of those candidates that do not make it worse.

    From the best candidate down (equals by number), a candidate is taken if the soup of those
    taken so far and it scores at least as much as the soup of those taken so far.

    Args:
        candidates: numbered from 0 by their place.
        scores: each candidate's own on the validation split; higher is better.
        score: a soup's on the validation split, its BatchNorm re-estimated first; it is called
            m - 1 times and must not change what it is given.

    Raises:
        UserError: as `uniform.merge`.
        ValueError: not one score a candidate.

    Source: Sparse Model Soups, section 2.2; Wortsman et al. 2022a, Recipe 1.
    """
    check(candidates)
    m = len(candidates)
    if len(scores) != m:
        raise ValueError(f"{len(scores)} scores for {m} candidates")
    order = sorted(range(m), key=lambda number: -scores[number])
    taken, best = [order[0]], scores[order[0]]
    trials = [{"candidate": order[0], "val_score": best, "accepted": True}]
    for number in order[1:]:
        tried = sorted([*taken, number])
        found = score(average([candidates[one] for one in tried]))
        accepted = found >= best
        trials.append({"candidate": number, "val_score": found, "accepted": accepted})
        if accepted:
            taken, best = tried, found
    weights = tuple(1 / len(taken) if number in taken else 0.0 for number in range(m))
    why = (
        f"{len(taken)} of {m} candidates, from the best down each with which the soup's "
        f"validation score did not fall; it is {best:.4f}"
    )
    return Soup(average([candidates[one] for one in taken]), weights, why, tuple(trials))
