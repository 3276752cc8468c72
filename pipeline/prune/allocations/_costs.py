"""Measured cost of one kept weight of each layer, for allocations that weigh magnitude by time."""

from statistics import median

import torch
from torch import Tensor, nn

from pipeline.channels.products import macs
from pipeline.errors import UserError
from pipeline.inference.costs import CSV, Layer, Table, load
from pipeline.prune.prunable import REFUSALS, prunable


def layer_costs(model: nn.Module, example: Tensor) -> dict[str, float]:
    """Return c_l, the nanoseconds that one image costs by one more kept weight of layer l.

        c_l = r_l * MACs_l / n_l        r_l nanoseconds a product, n_l weights

    MACs_l are the products of a pass with the weights of l (`macs`). The rate r_l is that of the
    nearest shape in the table of costs. Layers that are neither a 2-D convolution nor linear, such
    as attention's projections, have the median rate of the table; a weight that the pass does not
    use counts as one product. The table's instruction set is the same on every CPU, so equal tables
    give equal costs.

    Args:
        model: the network, left unchanged.
        example: one input [1, ...], as in `macs`; only its shape and dtype count.

    Raises:
        UserError: the network cannot take the example, or a cost in the table is not positive.
    """
    if not (isinstance(example, Tensor) and example.ndim and len(example)):
        raise UserError(
            "the example, by which layers' costs are known, is no batch: give a tensor [1, ...], "
            "one input of the network."
        )
    table, names = load(), prunable(model)
    shapes: dict[str, torch.Size] = {}
    products = _products(model, example[:1], shapes)
    usual = median(_rate(table, layer) for layer in dict.fromkeys(_shapes(table)))
    result = {}
    for name in names:
        owner, weight = name.removesuffix(".weight"), model.get_parameter(name)
        layer = _layer(model, owner, weight, shapes.get(owner))
        rate = usual if layer is None else _rate(table, layer)
        result[name] = rate * products.get(owner, weight.numel()) / weight.numel()
        if not result[name] > 0:
            raise UserError(
                f"{CSV.name} has a cost that does not grow with the weights kept, near {name!r}: "
                "measure it again (python -m pipeline.inference.measure)."
            )
    return result


def _products(model: nn.Module, example: Tensor, shapes: dict[str, torch.Size]) -> dict[str, int]:
    """Return `macs` of one pass, in which ``shapes`` gets the inputs' sizes of convolutions."""
    convolutions = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    hooks = [
        module.register_forward_pre_hook(
            lambda _, inputs, name=name: shapes.__setitem__(name, inputs[0].shape)
        )
        for name, module in convolutions
    ]
    try:
        return macs(model, example.to(next(model.parameters()).device))
    except REFUSALS as error:
        raise UserError(
            f"the network cannot take an example of shape {list(example.shape)} ({error}), by "
            "which its layers' costs are known: give one that it takes."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()


def _layer(model: nn.Module, owner: str, weight: Tensor, shape: torch.Size | None) -> Layer | None:
    """Return the shape in the table's terms of a layer's products, or None if it has none."""
    module = dict(model.named_modules()).get(owner)
    if isinstance(module, nn.Linear):
        return Layer(1, 1, weight.shape[1], weight.shape[0], 1, 1)
    if not isinstance(module, nn.Conv2d) or shape is None:
        return None
    height, width = shape[-2:]
    kernel, stride = module.kernel_size[0], module.stride[0]
    return Layer(kernel, stride, weight.shape[1], weight.shape[0], height, width)


def _rate(table: Table, layer: Layer) -> float:
    """Return nanoseconds a product."""
    return table.nanoseconds_per_weight(layer) * layer.weights / layer.macs


def _shapes(table: Table) -> list[Layer]:
    return [layer for by_layer in table.costs.values() for layer in by_layer]
