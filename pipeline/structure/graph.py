"""The traced graph of a network: its nodes, the layers they call, and which keep zeros zero."""

import operator

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.modules import activation, dropout, pooling

from pipeline.errors import UserError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
MEANS = (torch.mean, "mean")
FLATTENINGS = (torch.flatten, "flatten")
_ZERO_STAYS = (
    *(activation.ReLU, activation.ReLU6, activation.LeakyReLU, activation.ELU, activation.GELU),
    *(activation.SiLU, activation.Hardswish, activation.Tanh, nn.Identity, dropout._DropoutNd),
    *(pooling._MaxPoolNd, pooling._AvgPoolNd),
    *(pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd),
)
_ZERO_STAYS_FUNCTIONS = (
    *(torch.relu, functional.relu, functional.relu6, functional.gelu, functional.silu),
    *(functional.dropout, functional.max_pool2d, functional.avg_pool2d),
    *(functional.adaptive_avg_pool2d, "relu", "relu_", "contiguous"),
)


def trace(model: nn.Module) -> fx.GraphModule:
    """Return the graph of ``model``, which shares its layers.

    Raises:
        UserError: its forward pass depends on the values it computes.
    """
    try:
        return fx.symbolic_trace(model)
    except (fx.proxy.TraceError, AttributeError, NotImplementedError, RuntimeError, TypeError) as e:
        raise UserError(
            f"the graph of {type(model).__name__} cannot be traced ({e}), which pruning filters "
            "needs: set prune.structure to weights, or take another network."
        ) from e


def layer_of(network: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Return the layer that ``node`` calls, if it calls one."""
    return network.get_submodule(str(node.target)) if node.op == "call_module" else None


def called_once(node: fx.Node) -> bool:
    """Say whether no other node calls the same layer."""
    alike = [n for n in node.graph.nodes if (n.op, n.target) == (node.op, node.target)]
    return len(alike) == 1


def zero_stays(network: fx.GraphModule, node: fx.Node) -> bool:
    """Say whether ``node`` makes 0 of 0, channel by channel."""
    layer = layer_of(network, node)
    return isinstance(layer, _ZERO_STAYS) or (
        layer is None and node.target in _ZERO_STAYS_FUNCTIONS
    )


def feeds_linear(network: fx.GraphModule, node: fx.Node) -> bool:
    """Say whether a flattened value ends in Linear layers only, which know its features' order."""
    return all(
        (isinstance(layer_of(network, user), nn.Linear) and called_once(user))
        or (zero_stays(network, user) and feeds_linear(network, user))
        for user in node.users
    )
