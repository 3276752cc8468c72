"""Operations as PyTorch calls: the path without a C compiler, and the tests' comparison."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.inference.operations import Network, Operation, Shape


def run(network: Network, images: Tensor) -> Tensor:
    """Return the output of ``network`` for float32 [B, C, H, W]."""
    values: dict[str, Any] = {"input": images}
    for operation in network.operations:
        inputs = [values[name] for name in operation.inputs]
        if operation.call is not None:
            values[operation.output] = operation.call(*inputs)
        else:
            inputs = [x if x.ndim == 4 else x[:, :, None, None] for x in inputs]
            result = _KINDS[operation.kind](operation, *inputs)
            shape: Shape = network.shapes[operation.output]
            values[operation.output] = result if shape.rank == 4 else result.flatten(1)
    output: Tensor = values[network.output]
    return output


def _conv(operation: Operation, source: Tensor, residual: Tensor | None = None) -> Tensor:
    weight, bias = (torch.from_numpy(operation.arrays[name]) for name in ("weight", "bias"))
    options = {name: operation.settings[name] for name in ("stride", "padding", "dilation")}
    groups = operation.settings["groups"]
    return _bounded(
        operation, functional.conv2d(source, weight, bias, groups=groups, **options), residual
    )


def _affine(operation: Operation, source: Tensor, residual: Tensor | None = None) -> Tensor:
    if operation.arrays:
        arrays = (operation.arrays[name].reshape(-1, 1, 1) for name in ("scale", "shift"))
        scale, shift = map(torch.from_numpy, arrays)
        source = source * scale + shift
    return _bounded(operation, source, residual)


def _bounded(operation: Operation, result: Tensor, residual: Tensor | None) -> Tensor:
    result = result if residual is None else result + residual
    low, high = operation.settings["low"], operation.settings["high"]
    return result if low is None and high is None else result.clamp(low, high)


def _pool(operation: Operation, source: Tensor) -> Tensor:
    y0, y1, x0, x1 = operation.settings["windows"]
    rows = [source[:, :, a:b] for a, b in zip(y0, y1, strict=True)]
    parts = [[row[..., a:b] for a, b in zip(x0, x1, strict=True)] for row in rows]
    if "weights" in operation.arrays:
        weights = torch.from_numpy(operation.arrays["weights"])
        lines = [torch.stack([part.sum((2, 3)) for part in row], -1) for row in parts]
        return torch.stack(lines, 2) * weights
    return torch.stack([torch.stack([p.amax((2, 3)) for p in row], -1) for row in parts], 2)


def _concat(_: Operation, *inputs: Tensor) -> Tensor:
    return torch.cat(inputs, 1)


_KINDS: dict[str, Any] = {"conv": _conv, "affine": _affine, "pool": _pool, "concat": _concat}
