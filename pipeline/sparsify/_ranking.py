"""Ranking of weights in training, over all layers or within one, with exact counts."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.prune.topk import keep_largest, prune_smallest


def magnitudes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return |w| by name."""
    return {name: weight.detach().abs() for name, weight in weights.items()}


def largest(
    scores: Mapping[str, Tensor], sparsity: float, alive: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return masks of the largest scores of one global ranking, in the scores' memory format.

    Args:
        scores: non-negative, by name; compared as float32.
        sparsity: s; floor(s * n + 1/2) of all n are pruned (pipeline/prune/topk.py has the ties).
        alive: masks of the weights not pruned yet; by default all weights.
    """
    kept = keep_largest({name: score.float() for name, score in scores.items()}, sparsity, alive)
    return {
        name: torch.empty_like(score, dtype=torch.bool).copy_(kept[name])
        for name, score in scores.items()
    }


def top(score: Tensor, count: int, alive: Tensor) -> Tensor:
    """Return the mask of the ``count`` largest scores of a layer, in the score's memory format.

    Args:
        score: non-negative; compared as float32.
        count: at most the number that are alive.
        alive: bool, True where a weight may be chosen.
    """
    kept = prune_smallest({"": score.float()}, score.numel() - count, {"": alive})
    return torch.empty_like(score, dtype=torch.bool).copy_(kept[""])
