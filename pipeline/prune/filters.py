"""Structured pruning: the filters of least L2 norm, the same fraction of every convolution."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.channels.classifier import classifier
from pipeline.channels.operations import CONVOLUTIONS, trace
from pipeline.channels.zero_channels import FILTERS_NEED_GRAPH, dead_parameter_masks
from pipeline.errors import UserError
from pipeline.prune.metrics import count_metrics, norm_drop
from pipeline.prune.prunable import prunable
from pipeline.prune.topk import keep_largest
from pipeline.storage.checkpoint import Checkpoint


def prune_filters(
    checkpoint: Checkpoint, model: nn.Module, sparsity: float
) -> tuple[Checkpoint, dict[str, Any]]:
    """Return the checkpoint without the weakest filters of every convolution.

    Of a layer's n filters the k = min(floor(s * n + 1/2), n - 1) of the smallest norm
    sqrt(sum of w^2) are pruned. Among equal norms the earlier filter is pruned first; filters that
    are pruned already rank below all. Linear layers and the classifier stay dense (the filters of
    a convolutional classifier are the classes). The output of a pruned filter is 0: its bias and
    the BatchNorm scale and shift of its channel are pruned too (pipeline.channels.zero_channels).
    A layer whose channels the graph does not determine, such as a BatchNorm that is called twice,
    keeps its parameters.

    Args:
        checkpoint: the parent, left unchanged; masks of its linear layers are dropped.
        model: the network of the parent's state.
        sparsity: s, fraction of each layer's filters that is pruned afterwards, in [0, 1).

    Returns:
        A checkpoint whose masks cover every parameter with a pruned entry, exactly +0.0 there, and
        the metrics of pipeline.prune.apply.prune over the prunable weights, with ``filters``:
        {layer: {kept, filters}}.

    Raises:
        UserError: a weight is not finite, more filters are pruned already than asked for, the
            network has no convolution before the classifier, or it cannot be traced.

    Source: Li et al. 2016, "Pruning filters for efficient convnets"; Sparse Model Soups,
    appendix A.2.
    """
    if not 0 <= sparsity < 1:
        raise UserError(f"the sparsity is {sparsity}: it must be in [0, 1).")
    last = classifier(model)
    kept = {
        name: filter_mask(
            checkpoint.state[f"{name}.weight"], sparsity, checkpoint.masks.get(f"{name}.weight")
        )
        for name, layer in model.named_modules()
        if isinstance(layer, CONVOLUTIONS) and name != last
    }
    if not kept:
        raise UserError(
            "the network has no convolution before its classifier: set prune.structure to weights."
        )
    masks = {f"{name}.weight": _expand(model, name, rows) for name, rows in kept.items()}
    masks = {name: mask for name, mask in masks.items() if not mask.all()}
    masks |= dead_parameter_masks(trace(model, FILTERS_NEED_GRAPH), kept)
    zeroed = {name: torch.where(mask, checkpoint.state[name], 0.0) for name, mask in masks.items()}
    pruned = Checkpoint(dict(checkpoint.state) | zeroed, masks, checkpoint.meta)
    metrics = _metrics(checkpoint, pruned, model, kept)
    return Checkpoint(
        pruned.state, masks, checkpoint.meta | {"sparsity": metrics["sparsity"]}
    ), metrics


def filter_mask(weight: Tensor, sparsity: float, mask: Tensor | None = None) -> Tensor:
    """Return which filters of one layer are kept, bool [n].

    Args:
        weight: [n, ...], one filter a row.
        sparsity: fraction of the filters that is pruned afterwards; one is always kept.
        mask: the parent's, of the weight's shape; a filter that it prunes as a whole stays pruned.
    """
    if not torch.isfinite(weight).all():
        raise UserError(
            "a convolution holds NaN or infinity, so training diverged: lower the learning rate."
        )
    n = len(weight)
    alive = torch.ones(n, dtype=torch.bool) if mask is None else mask.flatten(1).any(1)
    # NumPy sums in a fixed order, so the bits do not depend on the thread count.
    squares = np.square(weight.detach().contiguous().double().numpy()).reshape(n, -1).sum(axis=1)
    norms = torch.from_numpy(np.sqrt(squares)).float()
    most = (n - 1) / n  # one filter is kept
    return keep_largest({"filters": norms}, min(sparsity, most), {"filters": alive})["filters"]


def _expand(model: nn.Module, name: str, kept: Tensor) -> Tensor:
    """Return the mask of a layer's weight from the mask of its filters, bool [n]."""
    weight = model.get_parameter(f"{name}.weight")
    return kept.view(-1, *[1] * (weight.ndim - 1)).expand_as(weight).contiguous()


def _metrics(
    parent: Checkpoint, pruned: Checkpoint, model: nn.Module, kept: Mapping[str, Tensor]
) -> dict[str, Any]:
    names = prunable(model)
    weights = {name: parent.state[name] for name in names}
    dense = {name: torch.ones_like(weights[name], dtype=torch.bool) for name in names}
    alive = {name: parent.masks.get(name, dense[name]) for name in names}
    left = {name: int(pruned.masks.get(name, dense[name]).count_nonzero()) for name in names}
    metrics = count_metrics(weights, alive, left)
    metrics["norm_drop"] = norm_drop(
        [parent.state[name] for name, _ in model.named_parameters()],
        {name: parent.state[name] for name in pruned.masks},
        {name: pruned.state[name] for name in pruned.masks},
    )
    metrics["filters"] = {
        name: {"kept": int(rows.count_nonzero()), "filters": len(rows)}
        for name, rows in kept.items()
    }
    return metrics
