"""Uniform allocation: every layer is pruned to the same sparsity (Zhu & Gupta 2017)."""

from collections.abc import Mapping

from torch import Tensor

from pipeline.prune.topk import keep_largest


def masks(
    scores: Mapping[str, Tensor], sparsity: float, alive: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the masks that prune exactly floor(s * n_l + 1/2) of each layer's n_l weights.

    Arguments, result and errors are those of the global allocation. The total may differ from
    floor(s * n + 1/2) by half a weight a layer.

    Source: Sparse Model Soups, appendix A.2 (UNIFORM).
    """
    result: dict[str, Tensor] = {}
    for name in scores:
        result |= keep_largest({name: scores[name]}, sparsity, {name: alive[name]})
    return result
