"""Zero channels: which channels of every value are exactly 0 once filters are pruned.

A pruned filter, bias included, makes a channel that is 0 for every image. The zero is followed
along the traced graph (torch.fx), node by node in the order of the pass:

    convolution            its kept filters, whatever comes in
    BatchNorm              as its input, if `dead_parameter_masks` zero scale and shift
    addition               a channel is 0 where it is in both
    ReLU, pooling, ...     as its input: they map 0 to 0
    mean over the image    as its input, and without an image (`flat`)
    anything else          not known, so every channel counts as active
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
    """The channels of a value [B, C, ...]: bool [C], False where one is 0 for every image.

    ``flat``: the value is [B, C * k], each channel's k features side by side.
    """

    active: Tensor
    flat: bool = False


def zero_channels(network: fx.GraphModule, kept: Mapping[str, Tensor]) -> dict[fx.Node, Channels]:
    """Return the active channels of each node's value, where they are known.

    Args:
        network: as `trace` returns it.
        kept: by the name of a convolution, bool [filters], False where a filter is pruned; one
            that is not named keeps all.
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

    These are the bias of a filter's convolution, and scale and shift of every BatchNorm that reads
    a channel which is 0 otherwise: the filter's, and that of a residual stream all of whose sources
    lack the channel. By parameter name, bool, False where the parameter must be 0; arguments are
    those of `zero_channels`.
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
    """Return the channels of ``node``, which is no convolution, given those of its inputs."""
    given = [known.get(arg) for arg in node.args[:2] if isinstance(arg, fx.Node)]
    first, kind, layer = given[0] if given else None, effect(network, node), layer_of(network, node)
    result = None
    if first is None:
        pass
    elif isinstance(layer, NORMS):
        result = first if layer.affine and not first.flat and called_once(node) else None
    elif kind is Effect.ADDITION:
        result = _sum(given)
    elif kind is Effect.MEAN and mean_axes(node) == (2, 3):
        result = Channels(first.active, flat=not node.kwargs.get("keepdim"))
    elif kind is Effect.FLATTENING:
        start = layer.start_dim if isinstance(layer, nn.Flatten) else (*node.args, 0)[1]
        if start == 1 and feeds_linear(network, node):
            result = Channels(first.active, flat=True)
    elif kind is Effect.ZERO_TO_ZERO:
        result = first
    return result


def _sum(given: Sequence[Channels | None]) -> Channels | None:
    """Return the channels of a sum of two values of one shape; any other sum is unknown."""
    one, other = given if len(given) == 2 else (None, None)
    if one is None or other is None:
        return None
    if (len(one.active), one.flat) != (len(other.active), other.flat):
        return None
    return Channels(one.active | other.active, one.flat)
