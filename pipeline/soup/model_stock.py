"""Model Stock: between parent and mean, by the angle of the candidates (Jang et al., 2024)."""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from pipeline.averaging import check, check_parent
from pipeline.soup.base import Soup, weighted_average
from pipeline.soup.uniform import average
from pipeline.storage.checkpoint import Checkpoint

SMALL = 2**16  # weights; a tensor of at most so many is not split


def merge(
    candidates: Sequence[Checkpoint], *, parent: Checkpoint, parameters: Sequence[str]
) -> Soup:
    """Return the estimated centre of all models that retraining could give.

        theta = t (theta_1 + ... + theta_m) / m + (1 - t) theta_parent
        t = m cos / (1 + (m - 1) cos)

    cos is the mean cosine, clipped at 0, of the angles between theta_i - theta_parent and
    theta_j - theta_parent over all pairs. The rule needs no data.

    Args:
        candidates: retrained from ``parent``; of one the soup is that one.
        parent: the pruned model, which has the candidates' mask.
        parameters: the names of the trained tensors, over which the angle is taken.

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
    reason = (
        f"all {m} candidates alike, {t:.4f} of the way from the pruned parent to their mean, "
        f"because the mean cosine between their ways is {cos:.4f}"
    )
    checkpoint = weighted_average([average(candidates), parent], [t, 1 - t])
    return Soup(checkpoint, (t / m,) * m, reason, trials, parent_weight=1 - t)


def ratio(cos: float, m: int) -> float:
    """Return t = m cos / (1 + (m - 1) cos): 0 for orthogonal differences, 1 for parallel ones."""
    cos = min(max(cos, 0.0), 1.0)
    return m * cos / (1 + (m - 1) * cos)


def inner_products(
    candidates: Sequence[Checkpoint], parent: Checkpoint, parameters: Sequence[str]
) -> dict[str, Tensor]:
    """Return <theta_i - theta_parent, theta_j - theta_parent> of each tensor, float64 [m, m].

    Large tensors are processed in slices, so that the differences of all candidates together take
    the memory of one network in float64.
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
            differences = start.new_empty(m, len(start[rows]))
            for difference, each in zip(differences, candidates, strict=True):
                difference.copy_(each.state[name].flatten()[rows]).sub_(start[rows])
            inner[name] += differences @ differences.T
    return inner


def cosine(inner: Tensor) -> float:
    """Return the mean cosine of all pairs from their inner products, float64 [m, m].

    1 where no angle exists: a single candidate, or one equal to the parent.
    """
    norms = inner.diagonal().sqrt()
    pairs = [
        float(inner[i, j] / (norms[i] * norms[j])) if norms[i] * norms[j] > 0 else 1.0
        for i, j in combinations(range(len(inner)), 2)
    ]
    return sum(pairs) / len(pairs) if pairs else 1.0
