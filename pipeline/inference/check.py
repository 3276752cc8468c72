"""Check of operations from a file: shapes fit, so that no kernel reads or writes outside."""

from math import prod

from pipeline.inference.geometry import kernel_of
from pipeline.inference.operations import Network, Operation, Shape

MOST = 2**31  # the kernels count in int32: values of an image, and numbers of a convolution


def check(network: Network) -> None:
    """Check that every operation reads values that exist, and that shapes fit.

    Raises:
        KeyError: a value, a setting or an array is missing.
        ValueError: a shape does not fit, or a number is not allowed.
    """
    known = {"input"}
    for operation in network.operations:
        for name in operation.inputs:
            if name not in known:
                raise KeyError(name)
        inputs = [network.shapes[name] for name in operation.inputs]
        _CHECKS[operation.kind](operation, inputs, network.shapes[operation.output])
        if operation.output in known:
            raise ValueError(f"{operation.output} is computed twice")
        known.add(operation.output)
    if network.output not in known or set(network.shapes) != known:
        raise ValueError("the output or a shape is no value of the network")
    for shape in network.shapes.values():
        sizes = shape[:3]
        _require(all(isinstance(size, int) and size > 0 for size in sizes) and shape.rank in {2, 4})
        _require(shape.rank == 4 or shape[1:3] == (1, 1))
        _require(prod(sizes) < MOST)


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError("shapes do not fit")


def _conv(operation: Operation, inputs: list[Shape], out: Shape) -> None:
    source, weight, kernel = inputs[0], operation.arrays["weight"], kernel_of(operation)
    groups = operation.settings["groups"]
    numbers = (*kernel.stride, *kernel.dilation, groups, *(p + 1 for p in kernel.padding))
    _require(all(isinstance(number, int) and 0 < number < MOST for number in numbers))
    _require(weight.ndim == 4 and weight.size > 0 and len(weight) % groups == 0)
    _require((len(weight), weight.shape[1] * groups) == (out.channels, source.channels))
    _require(operation.arrays["bias"].shape == (out.channels,))
    _require(not operation.settings["dense"] or groups == 1)
    for axis in range(2):
        last = source[1 + axis] + 2 * kernel.padding[axis] - kernel.reach[axis] - 1
        _require(last >= 0 and out[1 + axis] == last // kernel.stride[axis] + 1)
    _residual(operation, inputs, out)


def _affine(operation: Operation, inputs: list[Shape], out: Shape) -> None:
    _require(inputs[0][:3] == out[:3])
    _require(set(operation.arrays) in ({"scale", "shift"}, set()))
    _require(all(array.shape == (out.channels,) for array in operation.arrays.values()))
    _residual(operation, inputs, out)


def _residual(operation: Operation, inputs: list[Shape], out: Shape) -> None:
    _require(len(inputs) == 1 or (len(inputs) == 2 and inputs[1][:3] == out[:3]))
    bounds = (operation.settings["low"], operation.settings["high"])
    _require(all(bound is None or isinstance(bound, int | float) for bound in bounds))


def _pool(operation: Operation, inputs: list[Shape], out: Shape) -> None:
    (source,), (y0, y1, x0, x1) = inputs, operation.settings["windows"]
    _require(source.channels == out.channels)
    for starts, ends, count, size in (
        (y0, y1, out.height, source.height),
        (x0, x1, out.width, source.width),
    ):
        _require(len(starts) == len(ends) == count)
        _require(all(isinstance(edge, int) for edge in (*starts, *ends)))
        _require(all(0 <= start < end <= size for start, end in zip(starts, ends, strict=True)))
    weights = operation.arrays.get("weights")
    _require(weights is None or weights.shape == out[1:3])


def _concat(_: Operation, inputs: list[Shape], out: Shape) -> None:
    _require(sum(shape.channels for shape in inputs) == out.channels)
    _require(all(shape[1:3] == out[1:3] for shape in inputs))


_CHECKS = {"conv": _conv, "affine": _affine, "pool": _pool, "concat": _concat}
