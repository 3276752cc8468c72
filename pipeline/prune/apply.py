"""One pruning step: score the weights, choose how many each layer loses, zero them."""

from collections.abc import Iterable, Mapping, Sequence
from math import fsum, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.prune import rules
from pipeline.storage.checkpoint import Checkpoint


def prune(
    checkpoint: Checkpoint,
    names: Sequence[str],
    sparsity: float,
    criterion: str = "magnitude",
    allocation: "str | rules.Allocation" = "global",
    *,
    parameters: Iterable[str],
) -> tuple[Checkpoint, dict[str, Any]]:
    """Return the checkpoint pruned to ``sparsity``, and what the pruning did.

    Weights that the parent's masks prune stay pruned, so masks nest across phases.

    Args:
        checkpoint: the parent; it is not changed.
        names: the prunable weights in model order (pipeline.prune.prunable.prunable).
        sparsity: s, fraction of the prunable weights pruned afterwards, in [0, 1).
        criterion: a name in pipeline/prune/criteria.
        allocation: a name in pipeline/prune/allocations, or the function (rules.allocation).
        parameters: the names of all parameters of the model, buffers left out.

    Returns:
        A checkpoint whose masks cover ``names`` and whose weights are exactly +0.0 where pruned,
        and the metrics sparsity, kept, prunable, pruned_fraction (q, of the weights that still
        stood), norm_drop (r), layers (sparsity by name), dead_layers (those that lost all).

    Raises:
        UserError: no such weights or rule, weights that are not finite, or a sparsity that is out
            of range, below the parent's, or so high that nothing would be left.

    Source: Sparse Model Soups, Algorithm 1, "Prune"; appendix A.2.
    """
    if not 0 <= sparsity < 1:
        raise UserError(f"the sparsity is {sparsity}: give a fraction from 0 up to, not with, 1.")
    weights = _weights(checkpoint, names)
    alive = {
        name: checkpoint.masks.get(name, torch.ones_like(weight, dtype=torch.bool))
        for name, weight in weights.items()
    }
    scores = rules.load("criteria", criterion).scores(weights)
    allocate = rules.allocation(allocation) if isinstance(allocation, str) else allocation
    masks = allocate(scores, sparsity, alive)

    kept = {name: int(mask.count_nonzero()) for name, mask in masks.items()}
    if not any(kept.values()):
        total = sum(weight.numel() for weight in weights.values())
        raise UserError(f"a sparsity of {sparsity:g} leaves none of {total} weights: lower it.")
    zero = {name: torch.where(masks[name], weight, 0.0) for name, weight in weights.items()}
    metrics = count_metrics(weights, alive, kept)
    metrics["norm_drop"] = norm_drop([checkpoint.state[name] for name in parameters], weights, zero)
    meta = checkpoint.meta | {"sparsity": metrics["sparsity"]}
    return Checkpoint(dict(checkpoint.state) | zero, masks, meta), metrics


def norm_drop(
    parameters: Iterable[Tensor], before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> float:
    """Return r = sqrt(| ||W||^2 - ||W'||^2 |) / ||W||, the norm that pruning took, in [0, 1].

    Pruning zeroes coordinates, so by Pythagoras the numerator is ||W - W'||, which is summed
    instead because it does not cancel.

    Args:
        parameters: all of W, biases and normalisation included.
        before: the prunable weights of W.
        after: the same of W'.

    Source: Zimmer et al. 2023 (ALLR).
    """
    whole = fsum(_squares(weight) for weight in parameters)
    lost = fsum(_squares(before[name] - after[name]) for name in before)
    return sqrt(lost / whole) if whole else 0.0


def _weights(checkpoint: Checkpoint, names: Sequence[str]) -> dict[str, Tensor]:
    if not names:
        raise UserError("the network has no convolution or linear layer to prune: use another.")
    weights = {}
    for name in names:
        if name not in checkpoint.state:
            raise UserError(f"the checkpoint has no weight {name!r}: name the network it is of.")
        weights[name] = checkpoint.state[name]
        if not torch.isfinite(weights[name]).all():
            raise UserError(
                f"{name!r} holds NaN or infinity, so training diverged: lower the learning rate."
            )
    return weights


def count_metrics(
    weights: Mapping[str, Tensor], alive: Mapping[str, Tensor], kept: Mapping[str, int]
) -> dict[str, Any]:
    """Count what a pruning that found ``alive`` has kept: `prune`'s metrics but for norm_drop."""
    sizes = {name: weight.numel() for name, weight in weights.items()}
    total, left = sum(sizes.values()), sum(kept.values())
    stood = sum(int(mask.count_nonzero()) for mask in alive.values())
    return {
        "sparsity": (total - left) / total,
        "kept": left,
        "prunable": total,
        "pruned_fraction": (stood - left) / stood,
        "layers": {name: (sizes[name] - kept[name]) / sizes[name] for name in sizes},
        "dead_layers": [name for name in sizes if kept[name] == 0],
    }


def _squares(tensor: Tensor) -> float:
    # NumPy's sum runs on one thread in a fixed order: the same bits whatever the thread count.
    return float(np.square(tensor.detach().contiguous().double().numpy()).sum())
