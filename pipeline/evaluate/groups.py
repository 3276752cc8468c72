"""Group recalls: how well a classifier serves each group, and what pruning costs each."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pipeline.data.base import Dataset, Groups, Split
from pipeline.errors import UserError
from pipeline.evaluate.intervals import paired_interval, wilson_interval
from pipeline.evaluate.metrics import accuracy, correct


def select_group_set(data: Dataset, name: str | None) -> tuple[str, Groups]:
    """Return the group set ``name``; without one the data's first own, else its classes.

    Raises:
        UserError: the data set has no such groups.
    """
    own = [known for known in data.groups if known != "classes"]
    name = name or (own or ["classes"])[0]
    if name not in data.groups:
        raise UserError(
            f"study.subgroups.groups is {name!r}, but {data.name} has {', '.join(data.groups)}: "
            "name one of them, or leave it null"
        )
    return name, data.groups[name]


def by_group(
    part: str, scores: Tensor, split: Split, data: Dataset, groups: Groups
) -> dict[str, Any]:
    """Return the measures of one split, their names beginning with it.

    Args:
        part: "test" or "train".
        scores: logits on its examples, float [N, K].
        split: its labels, int64 [N].
        data: whose classes they are.
        groups: ``ids``, int64 [N], the group of each of its examples.

    Returns:
        {part}_accuracy (micro top-1), {part}_macro_accuracy (the mean over classes),
        {part}_group_mean (the mean over groups), {part}_worst_group, {part}_recall by group, and
        {part}: groups and classes as of `group_recall`.
    """
    right = correct(scores, split.labels)
    classes = group_recall(right, split.labels, data.classes)
    found = group_recall(right, groups.ids, groups.names)
    return {
        f"{part}_accuracy": accuracy(scores, split.labels),
        f"{part}_macro_accuracy": classes["balanced"],
        f"{part}_group_mean": found["balanced"],
        f"{part}_worst_group": found["worst_recall"],
        f"{part}_recall": {name: own["recall"] for name, own in found["groups"].items()},
        part: {"groups": found["groups"], "classes": classes["groups"]},
    }


def compare_with_dense(
    dense: Tensor, scores: Tensor, split: Split, part: str, groups: Groups
) -> dict[str, Any]:
    """Return {part}_error_change by group, and {part}_shift as of `pipeline.evaluate.groups`.

    Args:
        dense: the dense network's logits, float [N, K].
        scores: those of the network that was pruned from it.
        split: as of `by_group`.
        part: as of `by_group`.
        groups: as of `by_group`.
    """
    before, after = (correct(one, split.labels) for one in (dense, scores))
    found = error_changes(before, after, groups.ids, groups.names)
    changes = {name: own["change"] for name, own in found.items()}
    return {f"{part}_error_change": changes, f"{part}_shift": found}


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
        low, high = wilson_interval(recall, n)
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
        low, high = paired_interval(lost, gained, n)
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
