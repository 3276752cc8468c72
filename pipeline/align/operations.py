"""What the operations of a network do to its channels, and the refusal of those not known here."""

import operator

import torch
from torch import fx, nn
from torch.nn import functional

from pipeline.errors import UserError

MEANS = (torch.mean, "mean")
# Channel i of the value comes of channel i of each input ...
JOINING = (operator.add, operator.iadd, operator.mul, operator.imul, torch.add, torch.mul, "add")
# ... and of the only one; so for the layers.
KEEPING = (
    *(functional.relu, functional.relu6, functional.silu, functional.gelu, torch.relu, "relu"),
    *(functional.dropout, functional.avg_pool2d, functional.max_pool2d),
    *(functional.adaptive_avg_pool2d, torch.flatten, "flatten", *MEANS),
)
KEEPING_LAYERS = (
    *(nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Hardswish, nn.Hardsigmoid, nn.LeakyReLU),
    *(nn.Dropout, nn.Dropout2d, nn.Identity, nn.Flatten),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
)


def over_channels(node: fx.Node) -> bool:
    """Say whether ``node`` is a mean over other axes than height and width."""
    if node.target not in MEANS:
        return False
    axes = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    named = axes if isinstance(axes, tuple | list) else (axes,)
    return not {2, 3, -1, -2}.issuperset(named)


def unknown(what: str) -> UserError:
    """Return the error for a network that has ``what``."""
    return UserError(
        f"the network has {what}, whose channels cannot be permuted here: align another network, "
        "or leave imp_align out of methods"
    )
