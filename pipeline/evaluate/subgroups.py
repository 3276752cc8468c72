"""A classifier by group on one split of the data, and what changed from the dense network to it."""

from typing import Any

from torch import Tensor

from pipeline.data.base import Dataset, Groups, Split
from pipeline.errors import UserError
from pipeline.evaluate.groups import error_changes, group_recall
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
