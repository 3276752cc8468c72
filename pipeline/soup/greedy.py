"""GreedySoup: the mean of those candidates that do not lower the score (Wortsman et al., 2022a)."""

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
    """Return the GreedySoup, the mean of the candidates that were accepted.

    Candidates are tried from the best score down, equal scores by number. A candidate is accepted
    if the mean of the accepted ones and it scores at least as high as the mean without it.

    Args:
        candidates: numbered from 0 by their place.
        scores: each candidate's score on the validation split; higher is better.
        score: the score of a soup on the validation split, its BatchNorm re-estimated first. It is
            called m - 1 times and must not change its argument.

    Raises:
        UserError: as `uniform.merge`.
        ValueError: the numbers of scores and candidates differ.

    Source: Sparse Model Soups, section 2.2; Wortsman et al. 2022a, Recipe 1.
    """
    check(candidates)
    m = len(candidates)
    if len(scores) != m:
        raise ValueError(f"{len(scores)} scores for {m} candidates")
    order = sorted(range(m), key=lambda number: -scores[number])
    accepted, best = [order[0]], scores[order[0]]
    trials = [{"candidate": order[0], "val_score": best, "accepted": True}]
    for number in order[1:]:
        tried = sorted([*accepted, number])
        tried_score = score(average([candidates[one] for one in tried]))
        better = tried_score >= best
        trials.append({"candidate": number, "val_score": tried_score, "accepted": better})
        if better:
            accepted, best = tried, tried_score
    weights = tuple(1 / len(accepted) if number in accepted else 0.0 for number in range(m))
    reason = (
        f"{len(accepted)} of {m} candidates, from the best down each with which the soup's "
        f"validation score did not fall; it is {best:.4f}"
    )
    return Soup(average([candidates[one] for one in accepted]), weights, reason, tuple(trials))
