"""The traced graph of a network, and the table of what each operation does to channels."""

import operator
from enum import Enum, auto

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.modules import activation, dropout, pooling

from pipeline.errors import UserError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Effect(Enum):
    """What an operation does to the channels of the values [B, C, ...] that it is given."""

    CONVOLUTION = auto()
    LINEAR = auto()
    NORM = auto()  # scales and shifts each channel by itself
    ADDITION = auto()  # channel by channel, as is the product
    PRODUCT = auto()
    MEAN = auto()
    FLATTENING = auto()
    ZERO_TO_ZERO = auto()  # each channel by itself, and 0 becomes 0
    CHANNELWISE = auto()  # each channel by itself, and 0 may become another number
    UNKNOWN = auto()


_LAYERS: tuple[tuple[Effect, tuple[type[nn.Module], ...]], ...] = (
    (Effect.CONVOLUTION, CONVOLUTIONS),
    (Effect.LINEAR, (nn.Linear,)),
    (Effect.NORM, NORMS),
    (Effect.FLATTENING, (nn.Flatten,)),
    (
        Effect.ZERO_TO_ZERO,
        (
            *(activation.ReLU, activation.ReLU6, activation.LeakyReLU, activation.ELU),
            *(activation.GELU, activation.SiLU, activation.Hardswish, activation.Tanh),
            *(nn.Identity, dropout._DropoutNd, pooling._MaxPoolNd, pooling._AvgPoolNd),
            *(pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd),
        ),
    ),
    (Effect.CHANNELWISE, (activation.Sigmoid, activation.Hardsigmoid)),
)
_FUNCTIONS: dict[object, Effect] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), Effect.ADDITION),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul), Effect.PRODUCT),
    **dict.fromkeys((torch.mean, "mean"), Effect.MEAN),
    **dict.fromkeys((torch.flatten, "flatten"), Effect.FLATTENING),
    **dict.fromkeys(
        (
            *(torch.relu, functional.relu, functional.relu6, functional.gelu, functional.silu),
            *(functional.dropout, functional.max_pool2d, functional.avg_pool2d),
            *(functional.adaptive_avg_pool2d, "relu", "relu_", "contiguous"),
        ),
        Effect.ZERO_TO_ZERO,
    ),
}


def trace(model: nn.Module, remedy: str) -> fx.GraphModule:
    """Return the graph of ``model``, which shares its layers.

    Raises:
        UserError: its forward pass depends on the values it computes; ``remedy`` says what to do.
    """
    try:
        return fx.symbolic_trace(model)
    except (fx.proxy.TraceError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"the graph of {type(model).__name__} cannot be traced ({error}): {remedy}."
        ) from error


def layer_of(network: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Return the layer that ``node`` calls, if it calls one."""
    return network.get_submodule(str(node.target)) if node.op == "call_module" else None


def effect(network: fx.GraphModule, node: fx.Node) -> Effect:
    """Return what ``node`` does to channels."""
    layer = layer_of(network, node)
    if layer is not None:
        effects = (effect for effect, types in _LAYERS if isinstance(layer, types))
        return next(effects, Effect.UNKNOWN)
    called = node.op in {"call_function", "call_method"}
    return _FUNCTIONS.get(node.target, Effect.UNKNOWN) if called else Effect.UNKNOWN


def mean_axes(node: fx.Node) -> tuple[object, ...]:
    """Return the axes over which ``node`` is a mean; (None,) is over all."""
    axes = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    return tuple(axes) if isinstance(axes, list | tuple) else (axes,)


def called_once(node: fx.Node) -> bool:
    """Say whether no other node calls the same layer."""
    alike = [n for n in node.graph.nodes if (n.op, n.target) == (node.op, node.target)]
    return len(alike) == 1


def feeds_linear(network: fx.GraphModule, node: fx.Node) -> bool:
    """Say whether a flattened value ends in Linear layers only, which know its features' order."""
    return all(
        (effect(network, user) is Effect.LINEAR and called_once(user))
        or (effect(network, user) is Effect.ZERO_TO_ZERO and feeds_linear(network, user))
        for user in node.users
    )
