"""Pruning step: score the weights, choose the masks, set pruned weights to zero."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.prune import rules
from pipeline.prune.metrics import count_metrics, norm_drop
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
    """Return the checkpoint pruned to ``sparsity``, and metrics of the pruning.

    Weights that the parent's masks prune stay pruned, so masks nest from phase to phase.

    Args:
        checkpoint: the parent, left unchanged.
        names: the prunable weights in model order (pipeline.prune.prunable.prunable).
        sparsity: s, fraction of the prunable weights pruned afterwards, in [0, 1).
        criterion: a name in pipeline/prune/criteria.
        allocation: a name in pipeline/prune/allocations, or the function (rules.allocation).
        parameters: the names of all parameters of the model, without buffers.

    Returns:
        A checkpoint whose masks cover ``names`` and whose weights are exactly +0.0 where pruned,
        and the metrics sparsity, kept, prunable, pruned_fraction (q, of the weights that were not
        pruned before), norm_drop (r), layers (sparsity by name), dead_layers (no weight left).

    Raises:
        UserError: the weights or the rule do not exist, a weight is not finite, the criterion gives
            no score or a negative one, an allocation of the user's no masks that fit, or the
            sparsity is out of range, below the parent's, or so high that no weight would be left.

    Source: Sparse Model Soups, Algorithm 1, "Prune"; appendix A.2.
    """
    if not 0 <= sparsity < 1:
        raise UserError(f"the sparsity is {sparsity}: it must be in [0, 1).")
    weights = _weights(checkpoint, names)
    alive = {
        name: checkpoint.masks.get(name, torch.ones_like(weight, dtype=torch.bool))
        for name, weight in weights.items()
    }
    scores = rules.criterion(criterion)(weights)
    _check_scores(scores, weights, criterion)
    allocate = rules.allocation(allocation) if isinstance(allocation, str) else allocation
    masks = allocate(scores, sparsity, alive)

    kept = {name: int(mask.count_nonzero()) for name, mask in masks.items()}
    if not any(kept.values()):
        total = sum(weight.numel() for weight in weights.values())
        raise UserError(f"a sparsity of {sparsity:g} leaves none of {total} weights: lower it.")
    pruned = {name: torch.where(masks[name], weight, 0.0) for name, weight in weights.items()}
    metrics = count_metrics(weights, alive, kept)
    metrics["norm_drop"] = norm_drop(
        [checkpoint.state[name] for name in parameters], weights, pruned
    )
    meta = checkpoint.meta | {"sparsity": metrics["sparsity"]}
    return Checkpoint(dict(checkpoint.state) | pruned, masks, meta), metrics


def _weights(checkpoint: Checkpoint, names: Sequence[str]) -> dict[str, Tensor]:
    if not names:
        raise UserError("the network has no convolution or linear layer to prune: use another.")
    weights = {}
    for name in names:
        if name not in checkpoint.state:
            raise UserError(
                f"the checkpoint has no weight {name!r}: name the network that it is of."
            )
        weights[name] = checkpoint.state[name]
        if not torch.isfinite(weights[name]).all():
            raise UserError(
                f"{name!r} holds NaN or infinity, so training diverged: lower the learning rate."
            )
    return weights


def _check_scores(scores: Any, weights: Mapping[str, Tensor], criterion: str) -> None:
    """Refuse scores of a criterion, perhaps in a file of the user's, that cannot be ranked."""
    if not isinstance(scores, Mapping) or scores.keys() - weights.keys():
        raise UserError(
            f"the criterion {criterion} returns {rules.described(scores)}: it must return a dict "
            "of the scores of each weight, by the names that it is given."
        )
    for name, weight in weights.items():
        score = scores.get(name)
        if (
            not isinstance(score, Tensor)
            or score.shape != weight.shape
            or score.dtype != torch.float32
            or score.device != weight.device
            or not (score.isfinite() & (score >= 0)).all()
        ):
            raise UserError(
                f"the criterion {criterion} gives {name!r} no scores to rank: it must return a "
                "float32 tensor of the weight's shape, at least 0 and finite."
            )
