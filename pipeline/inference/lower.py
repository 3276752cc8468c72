"""Lowering: a traced network as operations; nodes without a kernel stay PyTorch operations."""

import operator
from math import isinf
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules import activation, dropout

from pipeline.channels.operations import layer_of, mean_axes
from pipeline.channels.rewrite import add_channels, scatter_channels
from pipeline.inference.in_place import changed_by
from pipeline.inference.operations import Floats, Network, Operation, Shape
from pipeline.inference.traced import IMAGES
from pipeline.inference.windows import adaptive, pooled

SAME = (nn.Identity, dropout._DropoutNd)
SAME_FUNCTIONS = (functional.dropout, functional.dropout2d, "contiguous")
ADD = (operator.add, operator.iadd, torch.add, "add", "add_")
RELU = (functional.relu, torch.relu, "relu", "relu_")
FLATTEN = (torch.flatten, "flatten")
CONCAT = (torch.cat, torch.concat)
BY_INDEX = (add_channels, scatter_channels, torch.index_select)
WHOLE = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1}


def lower(graph: fx.GraphModule) -> Network:
    """Return the operations of the network whose graph is `traced`, unfused."""
    return _Lowering(graph).network


class _Lowering:
    """Converts the nodes in order.

    ``names`` has the value of each node; a node that changes nothing has its input's value.
    ``flattened`` has [C, H, W] values that a later Linear layer reads as vectors.
    """

    def __init__(self, traced: fx.GraphModule) -> None:
        self.traced = traced
        self.names: dict[fx.Node, str] = {}
        self.flattened: dict[fx.Node, str] = {}
        self.network = Network([], {}, "")
        for node in traced.graph.nodes:
            if node.op == "placeholder":
                self.names[node] = "input"
                self.network.shapes["input"] = _shape(node) or Shape(0, 0, 0)
            elif node.op == "output":
                self.network.output = self.value(node.args[0])
            elif node.op != "get_attr":  # made where a PyTorch operation reads it
                if not self.native(node):
                    self.fall_back(node)
                self.replace(changed_by(node, layer_of(traced, node)), node)

    def replace(self, changed: fx.Node | None, node: fx.Node) -> None:
        """Let later operations read the value of ``node`` for ``changed`` and its aliases."""
        if changed in self.names and node in self.names:
            old, new = self.names[changed], self.names[node]
            for names in (self.names, self.flattened):
                names |= {each: new for each, name in names.items() if name == old}

    def value(self, node: fx.Node) -> str:
        """Return the value of ``node``; a flattened one or a constant is made, as it is needed."""
        if node not in self.names:
            self.flattened.pop(node, None)
            self.fall_back(node)
        return self.names[node]

    def fall_back(self, node: fx.Node) -> None:
        """Add ``node`` as a PyTorch operation."""
        call = _Call(self.traced, node)
        inputs = [self.value(source) for source in node.all_input_nodes]
        self.add(node, Operation("torch", inputs, node.name, {"node": str(node)}, call=call))

    def add(self, node: fx.Node, operation: Operation) -> None:
        """Add ``operation``, which computes the value of ``node``."""
        self.network.operations.append(operation)
        self.names[node] = operation.output
        shape = _shape(node)
        if shape is not None:
            self.network.shapes[operation.output] = shape

    def native(self, node: fx.Node) -> bool:
        """Add the operation of ``node``, if there is one; say whether it was added."""
        layer = layer_of(self.traced, node)
        source = next(iter(node.all_input_nodes), None)
        if source is None or _shape(node) is None:
            return False
        if source in self.flattened:
            return self.after_flatten(node, layer, source)
        if _shape(source) is None or source not in self.names:
            return False
        if isinstance(layer, SAME) or _function(node) in SAME_FUNCTIONS:
            self.names[node] = self.names[source]
            return True
        if isinstance(layer, nn.Flatten) or _function(node) in FLATTEN:
            return self.flatten(node, layer, source)
        operation, sources = self.by_index(node) or (self.by_kind(node, layer), _tensors(node))
        if operation is not None:
            operation.inputs = [self.value(n) for n in sources]
            operation.output = node.name
            self.add(node, operation)
        return operation is not None

    def by_index(self, node: fx.Node) -> tuple[Operation, list[fx.Node]] | None:
        """Return the operation that moves channels by an index, as of `shrink`, and its inputs.

        It is a 1x1 convolution with the weight 1 from each channel to its place, and 0 elsewhere.
        None for other nodes.
        """
        *sources, index = node.all_input_nodes
        if node.target not in BY_INDEX or index.op != "get_attr":
            return None
        before, after = _shape(sources[-1]), _shape(node)
        if before is None or after is None or any(n not in self.names for n in sources):
            return None
        where = self.traced.get_buffer(str(index.target)), torch.arange(before.channels)
        if node.target is torch.index_select:
            if (node.kwargs["dim"] if "dim" in node.kwargs else node.args[1]) != 1:
                return None
            where = torch.arange(after.channels), where[0]
        weight = torch.zeros(after.channels, before.channels, 1, 1)
        weight[where] = 1
        return _weighted(weight, None, WHOLE), sources[::-1]

    def flatten(self, node: fx.Node, layer: nn.Module | None, source: fx.Node) -> bool:
        """Note that ``node`` is a flattened value."""
        start, end = (
            (layer.start_dim, layer.end_dim)
            if isinstance(layer, nn.Flatten)
            else ((*node.args[1:], *node.kwargs.values(), -1)[:2] if len(node.args) > 1 else (0, 0))
        )
        if start != 1 or end != -1:
            return False
        name = self.names[source]
        if self.network.shapes[name][1:3] == (1, 1):
            self.add(node, Operation("concat", [name], node.name))
        else:
            self.flattened[node] = name
        return True

    def after_flatten(self, node: fx.Node, layer: nn.Module | None, source: fx.Node) -> bool:
        """Add a Linear layer after `flatten`: a convolution as large as the image."""
        name = self.flattened[source]
        if isinstance(layer, SAME) or _function(node) in SAME_FUNCTIONS:
            self.flattened[node] = name
            return True
        if not isinstance(layer, nn.Linear):
            return False
        channels, height, width, _ = self.network.shapes[name]
        operation = _linear(layer, (channels, height, width))
        operation.inputs, operation.output = [name], node.name
        self.add(node, operation)
        return True

    def by_kind(self, node: fx.Node, layer: nn.Module | None) -> Operation | None:
        """Return the operation of ``node`` without its names, or None."""
        shapes = [shape for n in _tensors(node) if (shape := _shape(n)) is not None]
        if len(shapes) != len(_tensors(node)):
            return None
        if len(shapes) > 1 or node.target in CONCAT:
            return _joined(node, shapes)
        return _layer(layer, shapes[0]) or self.simple(node, layer, shapes[0])

    def simple(self, node: fx.Node, layer: nn.Module | None, shape: Shape) -> Operation | None:
        """Return an operation without weights, or None."""
        bounds = _bounds(node, layer)
        if bounds is not None:
            return _affine(low=bounds[0], high=bounds[1])
        size, out = (shape.height, shape.width), _shape(node)
        if shape.rank != 4 or out is None:
            return None
        if _function(node) in (torch.mean, "mean"):
            axes = {int(a) % 4 for a in mean_axes(node) if isinstance(a, int)}
            return adaptive(size, (1, 1)) if axes == {2, 3} else None
        if isinstance(layer, nn.AdaptiveAvgPool2d) or node.target is functional.adaptive_avg_pool2d:
            return adaptive(size, (out.height, out.width))
        return pooled(node, layer, size)


class _Call:
    """Calls ``node`` on tensors, in the order of its inputs."""

    def __init__(self, traced: fx.GraphModule, node: fx.Node) -> None:
        self.interpreter, self.node = fx.Interpreter(traced), node

    def __call__(self, *values: Any) -> Any:
        known = dict(zip(self.node.all_input_nodes, values, strict=True))
        args, kwargs = fx.map_arg((self.node.args, self.node.kwargs), known.__getitem__)
        return getattr(self.interpreter, self.node.op)(self.node.target, args, kwargs)


def _function(node: fx.Node) -> Any:
    """Return the function or the name of the method that ``node`` calls; None for a layer."""
    return None if node.op == "call_module" else node.target


def _tensors(node: fx.Node) -> list[fx.Node]:
    """Return the inputs of ``node``, one used twice being there twice."""
    flat: list[fx.Node] = []
    fx.map_arg((node.args, node.kwargs), flat.append)
    return flat


def _joined(node: fx.Node, shapes: list[Shape]) -> Operation | None:
    """Return the operation of several values: their sum or their concatenation; or None."""
    if node.target in CONCAT:
        axis = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        fits = axis == 1 and all(shape.rank == 4 for shape in shapes)
        return Operation("concat", [], "") if fits else None
    plain = len(node.args) == 2 == len(shapes) and not node.kwargs
    return _affine() if _function(node) in ADD and plain and shapes[0] == shapes[1] else None


def _layer(layer: nn.Module | None, shape: Shape) -> Operation | None:
    """Return the operation of a layer with weights, or None."""
    if isinstance(layer, nn.Linear) and shape.rank == 2:
        return _linear(layer, (layer.in_features, 1, 1))
    if isinstance(layer, nn.Conv2d):
        return _convolution(layer)
    if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
        return _affine(_scale_and_shift(layer))
    return None


def _shape(node: fx.Node) -> Shape | None:
    """Return the shape of a float32 value [B, C, H, W] or [B, C], else None."""
    meta: Any = node.meta.get("tensor_meta")
    if node.op == "get_attr" or not hasattr(meta, "shape") or meta.dtype != torch.float32:
        return None
    sizes = tuple(meta.shape)
    if len(sizes) not in (2, 4) or sizes[0] != IMAGES:
        return None
    return Shape(*sizes[1:]) if len(sizes) == 4 else Shape(sizes[1], 1, 1, rank=2)


def numpy(tensor: Tensor) -> Floats:
    """Return a float32 copy of ``tensor``."""
    return tensor.detach().cpu().to(torch.float32).contiguous().numpy().copy()


def _affine(
    arrays: dict[str, Tensor] | None = None, *, low: float | None = None, high: float | None = None
) -> Operation:
    numbers = {name: numpy(tensor) for name, tensor in (arrays or {}).items()}
    return Operation("affine", [], "", {"low": low, "high": high}, numbers)


def _scale_and_shift(layer: nn.BatchNorm2d) -> dict[str, Tensor]:
    """Return scale = weight / sqrt(var + eps) and shift = bias - mean * scale, in float64."""
    mean, var = layer.running_mean, layer.running_var
    assert mean is not None
    assert var is not None
    scale = (var.double() + layer.eps).rsqrt()
    scale = scale if layer.weight is None else scale * layer.weight.detach().double()
    shift = -mean.double() * scale
    shift = shift if layer.bias is None else shift + layer.bias.detach().double()
    return {"scale": scale, "shift": shift}


def _convolution(layer: nn.Conv2d) -> Operation | None:
    padding = layer.padding
    if layer.padding_mode != "zeros":
        return None
    if isinstance(padding, str):
        pairs = zip(layer.kernel_size, layer.dilation, strict=True)
        spans = [d * (k - 1) if padding == "same" else 0 for k, d in pairs]
        if any(span % 2 for span in spans):
            return None
        padding = tuple(span // 2 for span in spans)
    settings = {
        **{"stride": list(layer.stride), "padding": list(padding)},
        **{"dilation": list(layer.dilation), "groups": layer.groups},
    }
    return _weighted(layer.weight, layer.bias, settings)


def _linear(layer: nn.Linear, shape: tuple[int, int, int]) -> Operation:
    return _weighted(layer.weight.view(-1, *shape), layer.bias, WHOLE)


def _weighted(weight: Tensor, bias: Tensor | None, settings: dict[str, Any]) -> Operation:
    zeros = np.zeros(len(weight), np.float32)
    arrays = {"weight": numpy(weight), "bias": zeros if bias is None else numpy(bias)}
    return Operation("conv", [], "", settings | {"low": None, "high": None}, arrays)


def _bounds(node: fx.Node, layer: nn.Module | None) -> tuple[float | None, float | None] | None:
    """Return low and high if ``node`` is max(min(x, high), low), else None; None bounds nothing."""
    if isinstance(layer, activation.Hardtanh):  # ReLU6 too
        low, high = (None if isinf(b) else b for b in (layer.min_val, layer.max_val))
        return low, high
    if isinstance(layer, nn.ReLU) or _function(node) in RELU:
        return 0.0, None
    return (0.0, 6.0) if node.target is functional.relu6 else None
