"""Physical removal: the smaller dense network that equals a network with pruned filters.

Every convolution has its kept filters and reads the active channels of its input; BatchNorm and
Linear layers are reduced accordingly. Where the two inputs of a residual addition have different
channels, the smaller one is added by index, so that the size of each convolution depends only on
its own mask.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn

from pipeline.channels.operations import (
    CONVOLUTIONS,
    NORMS,
    Effect,
    called_once,
    effect,
    layer_of,
    trace,
)
from pipeline.channels.rewrite import add_by_index, restore_channels, select_active
from pipeline.channels.zero_channels import FILTERS_NEED_GRAPH, Channels, zero_channels

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


def kept_filters(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return, by convolution, bool [filters], False where the masks prune the whole filter.

    A filter whose bias is not pruned counts as kept, because its output is not 0.
    """
    kept = {}
    for name, layer in model.named_modules():
        if isinstance(layer, CONVOLUTIONS):
            mask = masks.get(f"{name}.weight")
            if mask is not None:
                kept[name] = mask.flatten(1).any(1)
                if layer.bias is not None:
                    kept[name] |= masks.get(f"{name}.bias", torch.tensor(True))
    return kept


def shrink(model: nn.Module, kept: Mapping[str, Tensor]) -> fx.GraphModule:
    """Return the network without the pruned filters; its outputs are the same.

    The layers depend on names and shapes only, not on the values of the weights. The outputs are
    the same if the parameters of `zero_channels.dead_parameter_masks` are 0.

    Args:
        model: the network, left unchanged.
        kept: by convolution, bool [filters], False where a filter is pruned; a convolution without
            an entry keeps all.

    Raises:
        UserError: the network cannot be traced.
    """
    small = trace(copy.deepcopy(model).eval(), FILTERS_NEED_GRAPH)
    known = zero_channels(small, kept)
    for node in list(small.graph.nodes):
        layer, inputs = layer_of(small, node), [known.get(n) for n in node.all_input_nodes]
        if isinstance(layer, CONVOLUTIONS):
            _convolution(small, node, layer, known)
        elif isinstance(layer, nn.Linear) and inputs[0] is not None and inputs[0].flat:
            active = inputs[0].active
            _select(layer, "weight", active.repeat_interleave(layer.in_features // len(active)), 1)
            layer.in_features = layer.weight.shape[1]
        elif node not in known:
            for source in node.all_input_nodes:
                restore_channels(small, node, source, known)
        elif isinstance(layer, NORMS):
            for name in ("weight", "bias", "running_mean", "running_var"):
                _select(layer, name, known[node].active)
            layer.num_features = len(layer.weight)
        elif effect(small, node) is Effect.ADDITION:
            add_by_index(small, node, known)
    small.recompile()
    return small


def _convolution(
    small: fx.GraphModule, node: fx.Node, layer: Convolution, known: dict[fx.Node, Channels]
) -> None:
    """Select kept filters and active inputs; a grouped or repeated convolution stays whole."""
    source, outputs = node.all_input_nodes[0], known[node].active
    if layer.groups > 1 or not called_once(node):
        restore_channels(small, node, source, known)
        select_active(small, node, known)
        return
    if source in known:
        _select(layer, "weight", known[source].active, 1)
    _select(layer, "weight", outputs)
    _select(layer, "bias", outputs)
    layer.out_channels, layer.in_channels = layer.weight.shape[0], layer.weight.shape[1]


def _select(layer: nn.Module, name: str, selected: Tensor, dim: int = 0) -> None:
    """Reduce a layer's tensor, if it exists, to the entries ``selected`` (bool) along ``dim``."""
    tensor = getattr(layer, name)
    if tensor is not None:
        part = tensor.detach().index_select(dim, selected.nonzero().view(-1))
        setattr(layer, name, nn.Parameter(part) if isinstance(tensor, nn.Parameter) else part)
