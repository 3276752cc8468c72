"""Operations: the traced graph of a network, and the effect of each operation on channels."""

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
    """Effect of an operation on the channels of its input values [B, C, ...]."""

    CONVOLUTION = auto()
    LINEAR = auto()
    NORM = auto()  # scales and shifts each channel separately
    ADDITION = auto()  # channel by channel, like PRODUCT
    PRODUCT = auto()
    MEAN = auto()
    FLATTENING = auto()
    ZERO_TO_ZERO = auto()  # each channel separately, and 0 is mapped to 0
    CHANNELWISE = auto()  # each channel separately, and 0 may be mapped to another number
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
        UserError: the forward pass depends on computed values; ``remedy`` ends the message.
    """
    try:
        return fx.symbolic_trace(model)
    except (fx.proxy.TraceError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"the graph of {type(model).__name__} cannot be traced ({error}): {remedy}."
        ) from error


def layer_of(network: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Return the layer that ``node`` calls, or None."""
    return network.get_submodule(str(node.target)) if node.op == "call_module" else None


def effect(network: fx.GraphModule, node: fx.Node) -> Effect:
    """Return the effect of ``node`` on channels."""
    layer = layer_of(network, node)
    if layer is not None:
        effects = (effect for effect, types in _LAYERS if isinstance(layer, types))
        return next(effects, Effect.UNKNOWN)
    called = node.op in {"call_function", "call_method"}
    return _FUNCTIONS.get(node.target, Effect.UNKNOWN) if called else Effect.UNKNOWN


def mean_axes(node: fx.Node) -> tuple[object, ...]:
    """Return the axes over which ``node`` takes a mean; (None,) means all."""
    axes = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    return tuple(axes) if isinstance(axes, list | tuple) else (axes,)


def called_once(node: fx.Node) -> bool:
    """Say whether no other node calls the same layer."""
    calls = [n for n in node.graph.nodes if (n.op, n.target) == (node.op, node.target)]
    return len(calls) == 1


def feeds_linear(network: fx.GraphModule, node: fx.Node) -> bool:
    """Say whether only Linear layers, each called once, use the flattened value of ``node``."""
    return all(
        (effect(network, user) is Effect.LINEAR and called_once(user))
        or (effect(network, user) is Effect.ZERO_TO_ZERO and feeds_linear(network, user))
        for user in node.users
    )
