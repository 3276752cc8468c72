"""IMP-RePrune: average independently pruned models, then prune the average back."""

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

from pipeline.average import check, mean
from pipeline.checkpoint import Checkpoint
from pipeline.checkpoint import sparsity as sparsity_of
from pipeline.prune.apply import prune


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
    check(candidates, masks=False)
    union = {
        name: reduce(lambda one, other: one | other, (each.masks[name] for each in candidates))
        for name in names
        if all(name in each.masks for each in candidates)
    }
    average = Checkpoint(mean([each.state for each in candidates]), union, candidates[0].meta)
    pruned, metrics = prune(average, names, sparsity, criterion, allocation, parameters=parameters)
    return pruned, metrics | {"sparsity_of_mean": sparsity_of(average, names)}
