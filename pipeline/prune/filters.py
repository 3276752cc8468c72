"""Structured pruning: whole filters of every convolution, by L2 norm, each layer alike."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.channels.classifier import classifier
from pipeline.channels.operations import CONVOLUTIONS, trace
from pipeline.channels.zero_channels import FILTERS_NEED_GRAPH, dead_parameter_masks
from pipeline.errors import UserError
from pipeline.prune.apply import count_metrics, norm_drop
from pipeline.prune.prunable import prunable
from pipeline.prune.topk import keep_largest
from pipeline.storage.checkpoint import Checkpoint


def prune_filters(
    checkpoint: Checkpoint, model: nn.Module, sparsity: float
) -> tuple[Checkpoint, dict[str, Any]]:
    """Return the checkpoint without the weakest filters of every convolution.

    Of a layer's n filters the k = min(floor(s * n + 1/2), n - 1) of the smallest norm
    sqrt(sum of w^2) are gone: equal norms from the first filter on, filters that were gone before
    ahead of all. Linear layers stay dense, and so does the classifier, whose filters, where it is
    a convolution, are the classes. A filter that is gone
    contributes nothing: bias, BatchNorm scale and shift that would still speak for it are pruned
    too (pipeline.channels.zero_channels). What no graph can follow, such as a BatchNorm that
    is called twice, keeps its parameters.

    Args:
        checkpoint: the parent; it is not changed.
        model: the network that the parent's state is of.
        sparsity: s, fraction of each layer's filters that is gone afterwards, in [0, 1).

    Returns:
        A checkpoint whose masks cover all parameters that lost something, exactly +0.0 there, and
        the metrics of pipeline.prune.apply.prune, which count prunable weights, with ``filters``:
        {layer: {kept, filters}}.

    Raises:
        UserError: weights that are not finite, more filters gone than asked for, no convolution
            before the classifier, or a network that cannot be traced.

    Source: Li et al. 2016, "Pruning filters for efficient convnets"; Sparse Model Soups,
    appendix A.2.
    """
    if not 0 <= sparsity < 1:
        raise UserError(f"the sparsity is {sparsity}: give a fraction from 0 up to, not with, 1.")
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
    masks = {f"{name}.weight": _expand(model, name, own) for name, own in kept.items()}
    masks = {name: mask for name, mask in masks.items() if not mask.all()}
    masks |= dead_parameter_masks(trace(model, FILTERS_NEED_GRAPH), kept)
    zero = {name: torch.where(mask, checkpoint.state[name], 0.0) for name, mask in masks.items()}
    pruned = Checkpoint(dict(checkpoint.state) | zero, masks, checkpoint.meta)
    metrics = _metrics(checkpoint, pruned, model, kept)
    return Checkpoint(
        pruned.state, masks, checkpoint.meta | {"sparsity": metrics["sparsity"]}
    ), metrics


def filter_mask(weight: Tensor, sparsity: float, mask: Tensor | None = None) -> Tensor:
    """Return which filters of one layer are kept, bool [n].

    Args:
        weight: [n, ...], a filter a row.
        sparsity: fraction of the filters that is gone afterwards; one is always kept.
        mask: the parent's, of the weight's shape; a filter of which nothing is kept stays gone.
    """
    if not torch.isfinite(weight).all():
        raise UserError(
            "a convolution holds NaN or infinity, so training diverged: lower the learning rate."
        )
    n = len(weight)
    alive = torch.ones(n, dtype=torch.bool) if mask is None else mask.flatten(1).any(1)
    # NumPy's sum has a fixed order: the same bits whatever the thread count.
    squares = np.square(weight.detach().contiguous().double().numpy()).reshape(n, -1).sum(axis=1)
    norms = torch.from_numpy(np.sqrt(squares)).float()
    return keep_largest({"a layer": norms}, min(sparsity, (n - 1) / n), {"a layer": alive})[
        "a layer"
    ]


def _expand(model: nn.Module, name: str, kept: Tensor) -> Tensor:
    """Return the mask of a weight whose filters, its rows, are kept or gone as a whole."""
    weight = model.get_parameter(f"{name}.weight")
    return kept.view(-1, *[1] * (weight.ndim - 1)).expand_as(weight).contiguous()


def _metrics(
    parent: Checkpoint, pruned: Checkpoint, model: nn.Module, kept: Mapping[str, Tensor]
) -> dict[str, Any]:
    names = prunable(model)
    weights = {name: parent.state[name] for name in names}
    everything = {name: torch.ones_like(weights[name], dtype=torch.bool) for name in names}
    alive = {name: parent.masks.get(name, everything[name]) for name in names}
    left = {name: int(pruned.masks.get(name, everything[name]).count_nonzero()) for name in names}
    metrics = count_metrics(weights, alive, left)
    metrics["norm_drop"] = norm_drop(
        [parent.state[name] for name, _ in model.named_parameters()],
        {name: parent.state[name] for name in pruned.masks},
        {name: pruned.state[name] for name in pruned.masks},
    )
    metrics["filters"] = {
        name: {"kept": int(own.count_nonzero()), "filters": len(own)} for name, own in kept.items()
    }
    return metrics
