"""Global allocation: one ranking over the weights of all layers."""

from collections.abc import Mapping

from torch import Tensor

from pipeline.prune.topk import keep_largest


def masks(
    scores: Mapping[str, Tensor], sparsity: float, alive: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the masks that prune exactly floor(s * n + 1/2) of all n weights.

    Args:
        scores: float32, non-negative, by name in model order; the smallest are pruned first.
        sparsity: s, fraction of the prunable weights that is pruned afterwards, in [0, 1).
        alive: bool, True where a weight is not pruned yet; pruned weights stay pruned.

    Returns:
        bool masks, True where a weight is kept.

    Raises:
        UserError: more than s is pruned already.

    Source: Sparse Model Soups, appendix A.2 (GLOBAL).
    """
    return keep_largest(scores, sparsity, alive)
