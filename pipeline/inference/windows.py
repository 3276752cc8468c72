"""Pooling: the window of input rows and columns that each output reads, and its divisor."""

from math import ceil
from typing import Any

import numpy as np
from torch import fx, nn
from torch.nn import functional

from pipeline.inference.operations import Operation

Pair = tuple[int, int]
ARGUMENTS = {
    functional.max_pool2d: ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    functional.avg_pool2d: (
        *("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"),
        "divisor_override",
    ),
}


def adaptive(size: Pair, out: Pair) -> Operation:
    """Return the adaptive mean: output i of n reads floor(i N / n) to ceil((i + 1) N / n)."""
    windows = [
        [(i * n // o, -(-(i + 1) * n // o)) for i in range(o)]
        for n, o in zip(size, out, strict=True)
    ]
    return _pool(windows, _lengths(windows))


def pooled(node: fx.Node, layer: nn.Module | None, size: Pair) -> Operation | None:
    """Return the maximum or mean that ``node`` takes over windows, or None if it is neither."""
    maximum = isinstance(layer, nn.MaxPool2d) or _is_max(node)
    if not maximum and not isinstance(layer, nn.AvgPool2d) and node.target is not AVERAGE:
        return None
    options = _options(node, layer)
    if options is None or _pair(options.get("dilation", 1)) != (1, 1):
        return None
    kernel = _pair(options["kernel_size"])
    stride = _pair(options.get("stride") or kernel)
    padding = _pair(options.get("padding", 0))
    windows, padded = [], []
    for axis in range(2):
        k, s, p, n = kernel[axis], stride[axis], padding[axis], size[axis]
        steps = (n + 2 * p - k) / s
        count = (ceil(steps) if options.get("ceil_mode") else int(steps)) + 1
        count -= (count - 1) * s >= n + p  # the last window starts inside
        windows.append([(max(i * s - p, 0), min(i * s - p + k, n)) for i in range(count)])
        padded.append([(i * s - p, min(i * s - p + k, n + p)) for i in range(count)])
    if maximum:
        return _pool(windows, None)
    override = options.get("divisor_override")
    if override:
        return _pool(windows, np.full((len(windows[0]), len(windows[1])), float(override)))
    return _pool(windows, _lengths(padded if options.get("count_include_pad", True) else windows))


AVERAGE = functional.avg_pool2d


def _is_max(node: fx.Node) -> bool:
    return getattr(node.target, "__name__", "") in {"boolean_dispatch", "max_pool2d", "fn"} and (
        node.target is functional.max_pool2d
    )


def _options(node: fx.Node, layer: nn.Module | None) -> dict[str, Any] | None:
    """Return the arguments of a pooling by name; None if it also returns positions."""
    if layer is not None:
        options: dict[str, Any] = vars(layer)
    else:
        names = ARGUMENTS[functional.max_pool2d if node.target is not AVERAGE else AVERAGE]
        options = dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
    return None if options.get("return_indices") else options


def _pair(value: Any) -> Pair:
    first, last = (value, value) if isinstance(value, int) else tuple(value) * (3 - len(value))
    return first, last


def _lengths(windows: list[list[Pair]]) -> Any:
    rows, columns = (np.array([b - a for a, b in axis], float) for axis in windows)
    return np.outer(rows, columns)


def _pool(windows: list[list[Pair]], divisors: Any) -> Operation:
    flat = [[pair[end] for pair in axis] for axis in windows for end in range(2)]
    arrays = {} if divisors is None else {"weights": (1 / divisors).astype(np.float32)}
    return Operation("pool", [], "", {"windows": flat}, arrays)
