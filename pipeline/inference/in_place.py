"""In-place operations of a traced network, which also change the value that they read."""

import operator

from torch import fx, nn
from torch.nn import functional

OPERATORS = (operator.iadd, operator.isub, operator.imul, operator.itruediv)
POSITIONS = {functional.relu: 1, functional.relu6: 1}  # of the argument ``inplace``


def changed_by(node: fx.Node, layer: nn.Module | None) -> fx.Node | None:
    """Return the node whose value ``node`` changes, or None if it works on a copy."""
    first = next(iter(node.args), None)
    return first if isinstance(first, fx.Node) and _in_place(node, layer) else None


def _in_place(node: fx.Node, layer: nn.Module | None) -> bool:
    if layer is not None:
        return bool(getattr(layer, "inplace", False))
    target = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    position = next((i for function, i in POSITIONS.items() if function is target), None)
    given = position is not None and len(node.args) > position and bool(node.args[position])
    named = name.endswith("_") and not name.endswith("__")
    return given or named or target in OPERATORS or bool(node.kwargs.get("inplace", False))
