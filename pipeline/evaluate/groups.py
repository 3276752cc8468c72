"""Recall by group: whom a network serves worse than its accuracy says, and whom pruning costs."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pipeline.errors import UserError
from pipeline.evaluate.intervals import paired, wilson


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
    found: dict[str, dict[str, Any]] = {}
    for name, members in _members(right, groups, names).items():
        n = int(members.sum())
        recall = int(right[members].sum()) / n
        low, high = wilson(recall, n)
        found[name] = {"recall": recall, "n": n, "low": low, "high": high}
    worst = min(found, key=lambda name: found[name]["recall"])
    return {
        "groups": found,
        "worst_group": worst,
        "worst_recall": found[worst]["recall"],
        "balanced": sum(group["recall"] for group in found.values()) / len(found),
    }


def error_changes(
    before: Tensor, after: Tensor, groups: Tensor, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return what changed in each group from one network to another, on the same examples.

    change = (lost - gained) / n = error rate after - error rate before.

    Args:
        before: bool [N], the first network, the dense one, classifies the example right.
        after: bool [N], the second, pruned, one does.
        groups: as of `group_recall`.
        names: as of `group_recall`.

    Returns:
        {name: {lost, gained, change, low, high}}: how many examples only the first has right, how
        many only the second; the change with its 95 % interval.

    Raises:
        UserError: as of `group_recall`.
    """
    found = {}
    for name, members in _members(after, groups, names).items():
        lost = int((before & ~after)[members].sum())
        gained = int((~before & after)[members].sum())
        n = int(members.sum())
        low, high = paired(lost, gained, n)
        found[name] = {
            "lost": lost,
            "gained": gained,
            "change": (lost - gained) / n,
            "low": low,
            "high": high,
        }
    return found


def _members(right: Tensor, groups: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Return bool [N] for each group that has examples: whose they are."""
    if groups.shape != right.shape or int(groups.min()) < 0 or int(groups.max()) >= len(names):
        raise UserError(
            f"groups.safetensors does not give each of {len(right)} examples one of the "
            f"{len(names)} groups {list(names)}: delete artifacts/data and run `dvc repro`."
        )
    own = {name: groups == index for index, name in enumerate(names)}
    return {name: members for name, members in own.items() if members.any()}
