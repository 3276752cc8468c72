"""Which channels are exactly 0 once filters are gone, followed through the network.

A filter that is pruned, bias included, makes a channel that is 0 for every image. From there the
zero is followed along the traced graph (torch.fx), node by node in the order of the pass:

    convolution            its kept filters, whatever comes in
    BatchNorm              as its input, provided that scale and shift are 0 too (`silenced`)
    addition               a channel is 0 where it is in both
    ReLU, pooling, ...     as its input: they map 0 to 0
    mean over the image    as its input, and without an image (`flat`)
    anything else          not known, so every channel counts as carried
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from pipeline.structure.graph import (
    ADDITIONS,
    CONVOLUTIONS,
    FLATTENINGS,
    MEANS,
    NORMS,
    called_once,
    feeds_linear,
    layer_of,
    zero_stays,
)


@dataclass(frozen=True)
class Channels:
    """What a value [B, C, ...] carries: bool [C], False where a channel is 0 for every image.

    ``flat``: the value is [B, C * k], each channel's k features side by side.
    """

    carried: Tensor
    flat: bool = False


def channels(network: fx.GraphModule, kept: Mapping[str, Tensor]) -> dict[fx.Node, Channels]:
    """Return what each node's value carries, where it is known.

    Args:
        network: as `trace` returns it.
        kept: by the name of a convolution, bool [filters], False where a filter is gone; one that
            is not named keeps all.
    """
    known: dict[fx.Node, Channels] = {}
    for node in network.graph.nodes:
        layer = layer_of(network, node)
        if isinstance(layer, CONVOLUTIONS):
            whole = torch.ones(layer.out_channels, dtype=torch.bool)
            known[node] = Channels(kept.get(str(node.target), whole))
        elif (found := _passed_on(network, node, known)) is not None:
            known[node] = found
    return known


def silenced(network: fx.GraphModule, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return masks of the biases, scales and shifts by which a filter that is gone would speak.

    These are the bias of its convolution, and scale and shift of every BatchNorm that reads a
    channel which is 0 otherwise: its own, and that of a residual stream all of whose sources lack
    the channel. By parameter name, bool, False where the parameter must be 0; arguments are those
    of `channels`.
    """
    masks: dict[str, Tensor] = {}
    for node, found in channels(network, kept).items():
        layer = layer_of(network, node)
        if found.carried.all() or not isinstance(layer, (*CONVOLUTIONS, *NORMS)):
            continue
        for name, _ in layer.named_parameters():
            if not (isinstance(layer, CONVOLUTIONS) and name == "weight"):
                masks[f"{node.target}.{name}"] = found.carried
    return masks


def _passed_on(
    network: fx.GraphModule, node: fx.Node, known: Mapping[fx.Node, Channels]
) -> Channels | None:
    """Return what ``node``, which is no convolution, makes of the channels that it is given."""
    layer = layer_of(network, node)
    given = [known.get(arg) for arg in node.args[:2] if isinstance(arg, fx.Node)]
    first = given[0] if given else None
    result = None
    if first is None:
        pass
    elif isinstance(layer, NORMS):
        result = first if layer.affine and not first.flat and called_once(node) else None
    elif node.target in ADDITIONS:
        result = _sum(given)
    elif node.target in MEANS:
        dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        if isinstance(dims, list | tuple) and tuple(dims) == (2, 3):
            result = Channels(first.carried, flat=not node.kwargs.get("keepdim"))
    elif node.target in FLATTENINGS or isinstance(layer, nn.Flatten):
        start = layer.start_dim if isinstance(layer, nn.Flatten) else (*node.args, 0)[1]
        if start == 1 and feeds_linear(network, node):
            result = Channels(first.carried, flat=True)
    elif zero_stays(network, node):
        result = first
    return result


def _sum(given: Sequence[Channels | None]) -> Channels | None:
    """Return what the sum of two values carries: a number, or one channel for all, is unknown."""
    one, other = given if len(given) == 2 else (None, None)
    if one is None or other is None:
        return None
    if (len(one.carried), one.flat) != (len(other.carried), other.flat):
        return None
    return Channels(one.carried | other.carried, one.flat)
