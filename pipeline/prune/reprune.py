"""IMP-RePrune: average independently pruned models, then prune the average back."""

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

from torch import nn

from pipeline.average import check, mean
from pipeline.checkpoint import Checkpoint
from pipeline.checkpoint import sparsity as sparsity_of
from pipeline.prune.apply import prune
from pipeline.prune.filters import prune_filters
from pipeline.prune.parameters import prunable


def reprune(
    candidates: Sequence[Checkpoint],
    names: Sequence[str],
    sparsity: float,
    criterion: str = "magnitude",
    allocation: str = "global",
    *,
    parameters: Iterable[str],
) -> tuple[Checkpoint, dict[str, Any]]:
    """Return the mean of candidates whose masks differ, pruned to ``sparsity``.

    A weight of the mean stands where any candidate keeps it, so the mean is denser than its
    candidates; how dense is the metric ``sparsity_of_mean``, and pruned_fraction and norm_drop
    are relative to it. Arguments and the other metrics are those of pipeline.prune.apply.prune.

    Raises:
        UserError: candidates with other keys or shapes, or what `prune` refuses.

    Source: Sparse Model Soups, section 3.1 (IMP-RePrune, after Yin et al. 2022b).
    """
    average = mean_of_all(candidates, names)
    pruned, metrics = prune(average, names, sparsity, criterion, allocation, parameters=parameters)
    return pruned, metrics | {"sparsity_of_mean": sparsity_of(average, names)}


def reprune_filters(
    candidates: Sequence[Checkpoint], model: nn.Module, sparsity: float
) -> tuple[Checkpoint, dict[str, Any]]:
    """Return the mean of candidates that lack different filters, without its weakest filters.

    Arguments and metrics are those of pipeline.prune.filters.prune_filters and `reprune`.
    """
    names = prunable(model)
    average = mean_of_all(candidates, names)
    pruned, metrics = prune_filters(average, model, sparsity)
    return pruned, metrics | {"sparsity_of_mean": sparsity_of(average, names)}


def mean_of_all(candidates: Sequence[Checkpoint], names: Iterable[str]) -> Checkpoint:
    """Return the mean of candidates, under masks that keep what any of them keeps."""
    check(candidates, masks=False)
    union = {
        name: reduce(lambda one, other: one | other, (each.masks[name] for each in candidates))
        for name in names
        if all(name in each.masks for each in candidates)
    }
    return Checkpoint(mean([each.state for each in candidates]), union, candidates[0].meta)
