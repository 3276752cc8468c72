"""Model Stock: from the parent to the mean as far as candidates agree (Jang et al., 2024)."""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from pipeline.averaging import check, check_parent
from pipeline.soup.base import Soup, mixture
from pipeline.soup.uniform import average
from pipeline.storage.checkpoint import Checkpoint

SMALL = 2**16  # weights; a tensor of no more is taken as a whole


def merge(
    candidates: Sequence[Checkpoint], *, parent: Checkpoint, parameters: Sequence[str]
) -> Soup:
    """Return the point nearest the centre of all models that retraining could have given.

        theta = t (theta_1 + ... + theta_m) / m + (1 - t) theta_parent
        t = m cos / (1 + (m - 1) cos)

    where cos is the mean cosine, at least 0, of the angles between theta_i - theta_parent and
    theta_j - theta_parent over all pairs. It needs no data, and two candidates are enough.

    Args:
        candidates: at least two, retrained from ``parent``.
        parent: the pruned model, which has the candidates' mask.
        parameters: the names of the tensors that are trained; the angle is theirs.

    Raises:
        UserError: as `uniform.merge`, or a parent that does not fit.

    Source: Jang et al. 2024, Model Stock, Eq. 5 and 7.
    """
    check(candidates)
    check_parent(parent, candidates[0])
    m = len(candidates)
    inner = inner_products(candidates, parent, parameters)
    cos = cosine(sum(inner.values(), torch.zeros(m, m, dtype=torch.float64)))
    t = ratio(cos, m)
    trials = tuple({"tensor": name, "cosine": cosine(each)} for name, each in inner.items())
    why = (
        f"all {m} candidates alike, {t:.4f} of the way from the pruned parent to their mean, "
        f"because the mean cosine between their ways is {cos:.4f}"
    )
    checkpoint = mixture([average(candidates), parent], [t, 1 - t])
    return Soup(checkpoint, (t / m,) * m, why, trials, parent_weight=1 - t)


def ratio(cos: float, m: int) -> float:
    """Return t = m cos / (1 + (m - 1) cos): 0 for orthogonal ways, 1 for parallel ones."""
    cos = min(max(cos, 0.0), 1.0)
    return m * cos / (1 + (m - 1) * cos)


def inner_products(
    candidates: Sequence[Checkpoint], parent: Checkpoint, parameters: Sequence[str]
) -> dict[str, Tensor]:
    """Return <theta_i - theta_parent, theta_j - theta_parent> of each tensor, float64 [m, m].

    Of a tensor that is a large part of the network some weights are taken at a time, so that the
    differences of all candidates together need the memory of one network in float64.
    """
    m = len(candidates)
    total = sum(parent.state[name].numel() for name in parameters)
    step = max(SMALL, total // (2 * m))
    inner = {}
    for name in parameters:
        start = parent.state[name].flatten().double()
        inner[name] = torch.zeros(m, m, dtype=torch.float64)
        for part in range(0, len(start), step):
            rows = slice(part, part + step)
            ways = start.new_empty(m, len(start[rows]))
            for way, each in zip(ways, candidates, strict=True):
                way.copy_(each.state[name].flatten()[rows]).sub_(start[rows])
            inner[name] += ways @ ways.T
    return inner


def cosine(inner: Tensor) -> float:
    """Return the mean cosine of all pairs from their inner products, float64 [m, m].

    1 where there is no angle: one candidate, or one that has not moved.
    """
    norms = inner.diagonal().sqrt()
    pairs = [
        float(inner[i, j] / (norms[i] * norms[j])) if norms[i] * norms[j] > 0 else 1.0
        for i, j in combinations(range(len(inner)), 2)
    ]
    return sum(pairs) / len(pairs) if pairs else 1.0
