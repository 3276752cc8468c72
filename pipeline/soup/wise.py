"""WiSE-FT: the best point between the pruned parent and the mean (Wortsman et al., 2022b)."""

from collections.abc import Callable, Sequence

from pipeline.averaging import check, check_parent
from pipeline.soup.base import Soup, mixture
from pipeline.soup.uniform import average
from pipeline.storage.checkpoint import Checkpoint

GRID = tuple(tenths / 10 for tenths in range(10, -1, -1))


def merge(
    candidates: Sequence[Checkpoint],
    *,
    parent: Checkpoint,
    score: Callable[[Checkpoint], float],
) -> Soup:
    """Return the point with the best validation score between pruned parent and UniformSoup.

        theta = (1 - a) theta_parent + a (theta_1 + ... + theta_m) / m,   a = 1, 0.9, ..., 0

    Of equally good points the one nearest the soup is taken. The parent, pruned and not yet
    retrained, has the candidates' mask.

    Args:
        candidates: retrained from ``parent``.
        parent: the model that was retrained.
        score: a model's on the validation split, its BatchNorm re-estimated first.

    Raises:
        UserError: as `uniform.merge`, or a parent that does not fit.

    Source: Wortsman et al. 2022b, Robust fine-tuning of zero-shot models, Eq. 1.
    """
    check(candidates)
    check_parent(parent, candidates[0])
    ends, m = [average(candidates), parent], len(candidates)
    trials = [{"a": a, "val_score": score(mixture(ends, [a, 1 - a]))} for a in GRID]
    best = max(trials, key=lambda trial: trial["val_score"])  # the first of equals
    a = best["a"]
    why = (
        f"a = {a:g} of the way from the pruned parent to the mean of all {m} candidates: of "
        f"{len(GRID)} points the best validation score, {best['val_score']:.4f}"
    )
    return Soup(mixture(ends, [a, 1 - a]), (a / m,) * m, why, tuple(trials), parent_weight=1 - a)
