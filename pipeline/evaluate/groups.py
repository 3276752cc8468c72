"""Groups: recall of each group of examples, and its change from the dense to a pruned network."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pipeline.data.base import Dataset, Groups, Split
from pipeline.errors import UserError
from pipeline.evaluate.intervals import paired_interval, wilson_interval
from pipeline.evaluate.metrics import accuracy, correct


def select_group_set(data: Dataset, name: str | None) -> tuple[str, Groups]:
    """Return the group set ``name``; by default the first that is not the classes, else these.

    Raises:
        UserError: the data set has no such group set.
    """
    other_sets = [group_set for group_set in data.groups if group_set != "classes"]
    name = name or (other_sets or ["classes"])[0]
    if name not in data.groups:
        raise UserError(
            f"study.subgroups.groups is {name!r}, but {data.name} has {', '.join(data.groups)}: "
            "name one of them, or leave it null"
        )
    return name, data.groups[name]


def by_group(
    part: str, scores: Tensor, split: Split, data: Dataset, groups: Groups
) -> dict[str, Any]:
    """Return the metrics of one split; their names begin with the split's.

    Args:
        part: the name of the split, "test" or "train".
        scores: logits, float [N, K].
        split: the split, with labels int64 [N].
        data: the data set of the split.
        groups: ``ids``, int64 [N], the group of each example.

    Returns:
        {part}_accuracy (micro top-1), {part}_macro_accuracy (the mean over classes),
        {part}_group_mean (the mean over groups), {part}_worst_group, {part}_recall by group, and
        {part}: the ``groups`` of `group_recall` by group and by class.
    """
    is_correct = correct(scores, split.labels)
    by_class = group_recall(is_correct, split.labels, data.classes)
    recalls = group_recall(is_correct, groups.ids, groups.names)
    return {
        f"{part}_accuracy": accuracy(scores, split.labels),
        f"{part}_macro_accuracy": by_class["balanced"],
        f"{part}_group_mean": recalls["balanced"],
        f"{part}_worst_group": recalls["worst_recall"],
        f"{part}_recall": {name: group["recall"] for name, group in recalls["groups"].items()},
        part: {"groups": recalls["groups"], "classes": by_class["groups"]},
    }


def compare_with_dense(
    dense: Tensor, scores: Tensor, split: Split, part: str, groups: Groups
) -> dict[str, Any]:
    """Return {part}_error_change, the change by group, and {part}_shift, all of `error_changes`.

    Args:
        dense: logits of the dense network, float [N, K].
        scores: logits of the network that was pruned from it, float [N, K].
        split: as in `by_group`.
        part: as in `by_group`.
        groups: as in `by_group`.
    """
    before, after = (correct(logits, split.labels) for logits in (dense, scores))
    changes = error_changes(before, after, groups.ids, groups.names)
    by_name = {name: group["change"] for name, group in changes.items()}
    return {f"{part}_error_change": by_name, f"{part}_shift": changes}


def group_recall(is_correct: Tensor, groups: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Return the recall of each group, the fraction of its examples that is classified correctly.

    Args:
        is_correct: bool [N], True where the example is classified correctly.
        groups: int64 [N], each example's group, an index into ``names``.
        names: the groups' names.

    Returns:
        ``groups`` {name: {recall, n, low, high}} with Wilson's 95 % interval, without the groups
        that have no example; ``worst_group`` (the first of equal ones) and its ``worst_recall``;
        ``balanced``, the plain mean of the recalls (the paper's balanced accuracy).

    Raises:
        UserError: the examples do not have one group index in the range of ``names`` each.

    Source: paper, Appendix B.2.4 and Table 15.
    """
    recalls: dict[str, dict[str, Any]] = {}
    for name, members in _members(is_correct, groups, names).items():
        n = int(members.sum())
        recall = int(is_correct[members].sum()) / n
        low, high = wilson_interval(recall, n)
        recalls[name] = {"recall": recall, "n": n, "low": low, "high": high}
    worst = min(recalls, key=lambda name: recalls[name]["recall"])
    return {
        "groups": recalls,
        "worst_group": worst,
        "worst_recall": recalls[worst]["recall"],
        "balanced": sum(group["recall"] for group in recalls.values()) / len(recalls),
    }


def error_changes(
    before: Tensor, after: Tensor, groups: Tensor, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return the change of each group's error from one network to another, on the same examples.

    change = (lost - gained) / n = error rate after - error rate before.

    Args:
        before: bool [N], True where the first (dense) network is correct.
        after: bool [N], True where the second (pruned) network is correct.
        groups: as in `group_recall`.
        names: as in `group_recall`.

    Returns:
        {name: {lost, gained, change, low, high}}: the numbers of examples that only the first and
        only the second network classifies correctly, and the change with its 95 % interval.

    Raises:
        UserError: as in `group_recall`.
    """
    changes = {}
    for name, members in _members(after, groups, names).items():
        lost = int((before & ~after)[members].sum())
        gained = int((~before & after)[members].sum())
        n = int(members.sum())
        low, high = paired_interval(lost, gained, n)
        changes[name] = {
            "lost": lost,
            "gained": gained,
            "change": (lost - gained) / n,
            "low": low,
            "high": high,
        }
    return changes


def _members(is_correct: Tensor, groups: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Return bool [N] for each group that has examples, True for its members."""
    if groups.shape != is_correct.shape or int(groups.min()) < 0 or int(groups.max()) >= len(names):
        raise UserError(
            f"groups.safetensors must give each of {len(is_correct)} examples one of the "
            f"{len(names)} groups {list(names)}: delete artifacts/data and run `dvc repro`."
        )
    members = {name: groups == index for index, name in enumerate(names)}
    return {name: rows for name, rows in members.items() if rows.any()}
