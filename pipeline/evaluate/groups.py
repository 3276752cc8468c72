"""Recall by group: whom a network serves worse than its accuracy says."""

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist
from typing import Any

from torch import Tensor

from pipeline.errors import UserError

CONFIDENCE = 0.95


def interval(recall: float, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return Wilson's score interval of a share ``recall`` seen on ``n`` examples.

    (p + z^2/2n -+ z sqrt(p (1 - p) / n + z^2/4n^2)) / (1 + z^2/n), z the normal quantile.

    Source: Wilson 1927, Probable Inference, the Law of Succession, and Statistical Inference.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = recall + z * z / (2 * n)
    half = z * sqrt(recall * (1 - recall) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low, high = (centre - half) / scale, (centre + half) / scale
    # The interval holds the share and lies in [0, 1]; rounding would break that at both ends.
    return max(0.0, min(recall, low)), min(1.0, max(recall, high))


def group_recall(right: Tensor, groups: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Return how many of each group's examples are classified right.

    Args:
        right: bool [N], the example is classified right.
        groups: int64 [N], each example's group, an index into ``names``.
        names: the groups' names.

    Returns:
        ``groups`` {name: {recall, n, low, high}} with Wilson's 95 % interval, without the groups
        that have no example; ``worst_group`` (the first of equal ones) and its ``worst_recall``;
        ``balanced``, the plain mean of the recalls (the paper's balanced accuracy).

    Raises:
        UserError: there is not one group index an example, or one lies outside ``names``.

    Source: paper, Appendix B.2.4 and Table 15.
    """
    if groups.shape != right.shape or int(groups.min()) < 0 or int(groups.max()) >= len(names):
        raise UserError(
            f"groups.safetensors does not give each of {len(right)} examples one of the "
            f"{len(names)} groups {list(names)}: delete artifacts/data and run `dvc repro`."
        )
    found: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(names):
        members = groups == index
        n = int(members.sum())
        if n:
            recall = int(right[members].sum()) / n
            low, high = interval(recall, n)
            found[name] = {"recall": recall, "n": n, "low": low, "high": high}
    worst = min(found, key=lambda name: found[name]["recall"])
    return {
        "groups": found,
        "worst_group": worst,
        "worst_recall": found[worst]["recall"],
        "balanced": sum(group["recall"] for group in found.values()) / len(found),
    }
