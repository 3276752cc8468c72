"""What a network costs: parameters, multiply-accumulates, and the speed-up sparsity could give."""

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import UserError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _macs(layer: nn.Module, output: Tensor) -> int:
    """Return the multiply-accumulates of one pass that made ``output``: weights an output, each."""
    return output.numel() * prod(layer.get_parameter("weight").shape[1:])


def macs(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Return the multiply-accumulates of each Conv and Linear layer for one example.

    A convolution does N_out * (C_in / groups) * prod(kernel) with N_out output values, a Linear
    N_out * inputs, and a layer called twice does both. The sizes are those of a real pass, so
    stride, padding and dilation are counted as they act. The bias is not counted, nor are
    other operations (attention products, functional calls).

    Args:
        model: the network; it is left as it was, buffers and mode included.
        example: one stored example, uint8 [1, C, H, W] or token ids; its values do not matter, and
            a sentence counts at its full length.

    Returns:
        Multiply-accumulates by layer name, in the order of the first call.
    """
    counts: dict[str, int] = {}
    hooks = []
    for name, layer in model.named_modules():
        if isinstance(layer, (*CONVOLUTIONS, nn.Linear)):

            def count(layer: nn.Module, _: Any, output: Tensor, name: str = name) -> None:
                counts[name] = counts.get(name, 0) + _macs(layer, output)

            hooks.append(layer.register_forward_hook(count))
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            ones = torch.ones_like(example)  # of token ids, none is padding
            model(ones.float() if example.dtype == torch.uint8 else ones)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    return counts


def kept_fractions(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the kept fraction, in [0, 1], of each Conv and Linear layer's weight.

    Args:
        model: the network.
        masks: bool, True where a weight is kept, by parameter name; a layer without one is dense.
    """
    return {
        name: float(masks[key].double().mean()) if (key := f"{name}.weight") in masks else 1.0
        for name, layer in model.named_modules()
        if isinstance(layer, (*CONVOLUTIONS, nn.Linear))
    }


def cost(model: nn.Module, masks: Mapping[str, Tensor], example: Tensor) -> dict[str, Any]:
    """Return the network's size and its theoretical speed-up.

    speedup = sum_l MACs_l / sum_l MACs_l * kept_l, with kept_l layer l's fraction of kept weights.

    Args:
        model: the network.
        masks: bool, True where a weight is kept, by parameter name.
        example: as of `macs`.

    Returns:
        ``parameters``, ``nonzeros`` (parameters that no mask prunes), ``macs``, ``sparse_macs``,
        ``speedup``, ``layers`` {name: {macs, weights, sparsity}} in the order of the pass.

    Raises:
        UserError: the masks prune every weight.

    Source: paper, Appendix A.2.
    """
    dense, kept = macs(model, example), kept_fractions(model, masks)
    sparse = sum(count * kept[name] for name, count in dense.items())
    if sparse == 0:
        raise UserError("every weight is pruned, so there is no network: lower target_sparsity.")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    layers = {
        name: {
            "macs": count,
            "weights": model.get_parameter(f"{name}.weight").numel(),
            "sparsity": 1 - kept[name],
        }
        for name, count in dense.items()
    }
    return {
        "parameters": parameters,
        "nonzeros": parameters - sum(int((~mask).sum()) for mask in masks.values()),
        "macs": sum(dense.values()),
        "sparse_macs": sparse,
        "speedup": sum(dense.values()) / sparse,
        "layers": layers,
    }
