"""Semi-structured pruning: N of every M consecutive weights along the input channels (N:M).

A group is M consecutive input channels of one output at one kernel position:

    linear layer             [out, in]              W[o, M g : M g + M]
    convolution              [out, in, kh, kw]      W[o, M g : M g + M, y, x]
    transposed convolution   [in, out, kh, kw]      W[M g : M g + M, o, y, x]

These are M consecutive entries of a row of the matrix by which a layer multiplies: in channels-last
(NHWC) order, im2col puts the input channels of a kernel position next to each other. Sparse tensor
cores read 2:4 in this order.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.prune.apply import prune
from pipeline.prune.pattern import Pattern
from pipeline.prune.prunable import prunable
from pipeline.storage.checkpoint import Checkpoint

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def prune_semi_structured(
    checkpoint: Checkpoint, model: nn.Module, pattern: Pattern, criterion: str = "magnitude"
) -> tuple[Checkpoint, dict[str, Any]]:
    """Return the checkpoint with exactly N weights in every group of M, and the pruning's metrics.

    Weights that the parent's masks prune stay pruned. A layer whose input channels (those of one
    group, where a convolution has several) are not divisible by M stays dense.

    Args:
        checkpoint: the parent, left unchanged.
        model: the network of the parent's state.
        pattern: N:M.
        criterion: a name in pipeline/prune/criteria.

    Returns:
        As `pipeline.prune.apply.prune`, with the pattern as ``structure`` in the checkpoint's meta,
        and the metric ``dense_layers``: the names of the layers that stay dense.

    Raises:
        UserError: as `prune`; or every layer stays dense, or a group has fewer than N weights left.

    Source: Mishra et al. 2021, "Accelerating sparse deep neural networks" (2:4); Zhou et al. 2021,
    "Learning N:M fine-grained structured sparse neural networks from scratch".
    """
    names = prunable(model)
    dims = _input_dims(model, names, pattern.m)
    if names and not dims:
        raise UserError(
            f"prune.structure is {pattern}, but no layer has input channels that are divisible by "
            f"{pattern.m}: take another N:M, or set it to weights."
        )

    def masks(
        scores: Mapping[str, Tensor], _: float, alive: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        return {
            name: group_mask(scores[name], pattern, each, dims[name]) if name in dims else each
            for name, each in alive.items()
        }

    parameters = [name for name, _ in model.named_parameters()]
    pruned, metrics = prune(
        checkpoint, names, pattern.sparsity, criterion, masks, parameters=parameters
    )
    pruned.meta["structure"] = str(pattern)
    return pruned, metrics | {"dense_layers": [name for name in names if name not in dims]}


def group_mask(scores: Tensor, pattern: Pattern, alive: Tensor, dim: int = 1) -> Tensor:
    """Return the mask that is False at the M - N smallest scores of every group.

    Pruned weights rank below every score. Among equal scores the earlier input channel is pruned
    first, as in `pipeline.prune.topk`.

    Args:
        scores: float32, non-negative, no NaN, with a multiple of M entries along ``dim``.
        pattern: N:M.
        alive: bool, the scores' shape, True where a weight is not pruned yet.
        dim: that of the input channels.

    Raises:
        UserError: a group has fewer than N weights left.
    """
    keys = torch.where(alive, scores, -1.0).movedim(dim, -1)
    order = keys.reshape(-1, pattern.m).argsort(dim=-1, stable=True)
    kept = torch.ones_like(order, dtype=torch.bool)
    kept.scatter_(-1, order[:, : pattern.m - pattern.n], value=False)
    mask = kept.view(keys.shape).movedim(-1, dim).contiguous()
    if (mask & ~alive).any():
        raise UserError(
            f"a group of {pattern.m} weights has fewer than {pattern.n} left, and pruned weights "
            f"stay pruned, so {pattern} is impossible: prune a network that keeps more."
        )
    return mask


def _input_dims(model: nn.Module, names: list[str], m: int) -> dict[str, int]:
    """Return the dimension of the input channels of each weight where ``m`` divides them."""
    dims = {}
    for name in names:
        layer, weight = model.get_submodule(name.rpartition(".")[0]), model.get_parameter(name)
        if isinstance(layer, TRANSPOSED):
            dim, channels = 0, layer.in_channels // layer.groups
        else:
            dim, channels = 1, weight.shape[1]
        if channels % m == 0:
            dims[name] = dim
    return dims
