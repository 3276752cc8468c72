"""Zero channels: the channels of every value that are exactly 0 after filters are pruned.

The output channel of a pruned filter, bias included, is 0 for every image. Zeros are propagated
through the traced graph (torch.fx), node by node in the order of the pass:

    convolution            the channels of its kept filters are active, whatever the input
    BatchNorm              as its input, if `dead_parameter_masks` zero scale and shift
    addition               a channel is 0 where it is 0 in both terms
    ReLU, pooling, ...     as its input: they map 0 to 0
    mean over the image    as its input, without spatial axes (`flat`)
    anything else          unknown, so every channel counts as active
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from pipeline.channels.operations import (
    CONVOLUTIONS,
    NORMS,
    Effect,
    called_once,
    effect,
    feeds_linear,
    layer_of,
    mean_axes,
)

FILTERS_NEED_GRAPH = (
    "filters are pruned along the graph, so set prune.structure to weights, or take another network"
)


@dataclass(frozen=True)
class Channels:
    """Activity of the channels of a value [B, C, ...]: bool [C], False where 0 for every image.

    ``flat``: the value is [B, C * k], with the k features of each channel adjacent.
    """

    active: Tensor
    flat: bool = False


def zero_channels(network: fx.GraphModule, kept: Mapping[str, Tensor]) -> dict[fx.Node, Channels]:
    """Return the active channels of each node's value, where they are known.

    Args:
        network: as `trace` returns it.
        kept: by the name of a convolution, bool [filters], False where a filter is pruned; a
            convolution without an entry keeps all.
    """
    known: dict[fx.Node, Channels] = {}
    for node in network.graph.nodes:
        layer = layer_of(network, node)
        if isinstance(layer, CONVOLUTIONS):
            whole = torch.ones(layer.out_channels, dtype=torch.bool)
            known[node] = Channels(kept.get(str(node.target), whole))
        elif (result := _propagate(network, node, known)) is not None:
            known[node] = result
    return known


def dead_parameter_masks(network: fx.GraphModule, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return masks that zero bias and BatchNorm parameters of pruned filters.

    These are the bias of the filter's convolution, and scale and shift of every BatchNorm whose
    input channel is 0: the filter's channel, and channels of a residual stream that are 0 in all of
    its terms. By parameter name, bool, False where the parameter must be 0. Arguments are those of
    `zero_channels`.
    """
    masks: dict[str, Tensor] = {}
    for node, value in zero_channels(network, kept).items():
        layer = layer_of(network, node)
        if value.active.all() or not isinstance(layer, (*CONVOLUTIONS, *NORMS)):
            continue
        for name, _ in layer.named_parameters():
            if not (isinstance(layer, CONVOLUTIONS) and name == "weight"):
                masks[f"{node.target}.{name}"] = value.active
    return masks


def _propagate(
    network: fx.GraphModule, node: fx.Node, known: Mapping[fx.Node, Channels]
) -> Channels | None:
    """Return the channels of ``node``, which is no convolution, from those of its inputs."""
    inputs = [known.get(arg) for arg in node.args[:2] if isinstance(arg, fx.Node)]
    first, kind, layer = (
        inputs[0] if inputs else None,
        effect(network, node),
        layer_of(network, node),
    )
    result = None
    if first is None:
        pass
    elif isinstance(layer, NORMS):
        result = first if layer.affine and not first.flat and called_once(node) else None
    elif kind is Effect.ADDITION:
        result = _sum(inputs)
    elif kind is Effect.MEAN and mean_axes(node) == (2, 3):
        result = Channels(first.active, flat=not node.kwargs.get("keepdim"))
    elif kind is Effect.FLATTENING:
        start = layer.start_dim if isinstance(layer, nn.Flatten) else (*node.args, 0)[1]
        if start == 1 and feeds_linear(network, node):
            result = Channels(first.active, flat=True)
    elif kind is Effect.ZERO_TO_ZERO:
        result = first
    return result


def _sum(terms: Sequence[Channels | None]) -> Channels | None:
    """Return the channels of a sum of two values of one shape; any other sum is unknown."""
    one, other = terms if len(terms) == 2 else (None, None)
    if one is None or other is None:
        return None
    if (len(one.active), one.flat) != (len(other.active), other.flat):
        return None
    return Channels(one.active | other.active, one.flat)
