"""Measurement of the table of costs, as a command.

    python -m pipeline.inference.measure                             # the layers of costs.csv again
    python -m pipeline.inference.measure --layers 3,1,64,64,32,32    # and another one

A layer is kernel, stride, channels of input and output, height and width of the input; `layers`
lists those of a network. Each is timed on one thread, densely and at each sparsity with a random
mask, in blocks of 16 images: the fastest of many runs, which other processes change least.
"""

import argparse
import csv
import ctypes
import math
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.inference import steps
from pipeline.inference.check import MOST
from pipeline.inference.costs import COLUMNS, CSV, NUMBERS, SPARSITIES, Layer, load
from pipeline.inference.layout import LINE
from pipeline.inference.library import FLAGS, VARIABLE, Step, required_library
from pipeline.inference.lower import lower
from pipeline.inference.network import aligned
from pipeline.inference.operations import Floats, Network, Operation, Shape
from pipeline.inference.plan import Plan
from pipeline.inference.traced import traced
from pipeline.storage.atomic_files import atomic_file

KERNELS = (steps.CONV, steps.DENSE, steps.GATHER)


def layers(model: nn.Module, shape: Sequence[int]) -> list[Layer]:
    """Return the shapes of the convolutions of ``model`` for images [C, H, W], each once."""
    network = lower(traced(model, shape))
    shapes = (
        _layer(network, operation)
        for operation in network.operations
        if operation.kind == "conv" and operation.settings["groups"] == 1
    )
    return list(dict.fromkeys(layer for layer in shapes if layer.height > 1))


def _layer(network: Network, operation: Operation) -> Layer:
    outputs, inputs, kernel, _ = operation.arrays["weight"].shape
    _, height, width, _ = network.shapes[operation.inputs[0]]
    return Layer(kernel, operation.settings["stride"][0], inputs, outputs, height, width)


def measure(layer: Layer, sparsity: float | None, seconds: float) -> float:
    """Return the fastest time of the layer's kernel, in microseconds an image.

    Args:
        layer: its shape.
        sparsity: of a random mask; None for the dense kernel.
        seconds: to repeat it for, at least once.

    Raises:
        UserError: there is no C compiler, or the layer is too large for the kernels or the memory.
    """
    kernels = required_library()
    try:
        plan = Plan(_single(layer, sparsity), LINE, kernels.vector)
        workspace = aligned(plan.floats)
    except (MemoryError, ValueError) as error:  # NumPy's for more bytes than addresses
        raise UserError(
            f"the layer {layer} does not fit into memory ({error}): leave it out."
        ) from error
    chosen = [step for step in plan.parts[0].steps if step.kind in KERNELS]
    program = (Step * len(chosen))(*chosen)
    best, begin = float("inf"), perf_counter()
    while best == float("inf") or perf_counter() - begin < seconds:
        start = perf_counter()
        kernels.run(program, len(chosen), workspace.ctypes.data, ctypes_none(), LINE)
        best = min(best, perf_counter() - start)
    return 1e6 * best / LINE


def ctypes_none() -> "ctypes._Pointer[ctypes.c_void_p]":
    """Return a pointer to no tensors."""
    return ctypes.POINTER(ctypes.c_void_p)()


def _single(layer: Layer, sparsity: float | None) -> Network:
    """Return the network of one convolution."""
    generator, k = np.random.default_rng(0), layer.kernel
    shape = (layer.out_channels, layer.in_channels, k, k)
    weight: Floats = generator.standard_normal(shape, np.float32)
    weight[generator.random(shape) < (sparsity or 0)] = 0
    settings = {
        **{"stride": [layer.stride] * 2, "padding": [k // 2] * 2, "dilation": [1, 1]},
        **{"groups": 1, "low": 0.0, "high": None, "dense": sparsity is None},
    }
    arrays = {"weight": weight, "bias": np.zeros(layer.out_channels, np.float32)}
    operation = Operation("conv", ["input"], "output", settings, arrays)
    sizes = [(size + 2 * (k // 2) - k) // layer.stride + 1 for size in (layer.height, layer.width)]
    shapes = {"input": Shape(layer.in_channels, layer.height, layer.width)}
    return Network([operation], shapes | {"output": Shape(shape[0], *sizes)}, "output")


def rows(known: Sequence[Layer], isas: Sequence[str], seconds: float) -> Iterator[dict[str, str]]:
    """Yield the rows of the table; each cost is the smaller of two, measured far apart."""
    for isa in isas:
        os.environ[VARIABLE] = isa
        points = list(product(known, (None, *SPARSITIES)))
        first = [measure(*point, seconds / 2) for point in points]
        for (layer, sparsity), cost in zip(points, first, strict=True):
            fastest = min(cost, measure(layer, sparsity, seconds / 2))
            numbers = {name: str(getattr(layer, name)) for name in NUMBERS}
            name = "dense" if sparsity is None else f"{sparsity:g}"
            yield {"isa": isa, **numbers, "sparsity": name, "microseconds": f"{fastest:.4g}"}


def _parsed(text: str) -> Layer:
    numbers = text.split(",")
    if len(numbers) != len(NUMBERS) or not all(
        n.isdecimal() and 0 < int(n) < MOST for n in numbers
    ):
        raise argparse.ArgumentTypeError(
            f"{text!r} must be {','.join(NUMBERS).upper()}, each from 1 to {MOST - 1}, as in "
            "3,1,64,64,32,32"
        )
    return Layer(*map(int, numbers))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds >= 0, as in 0.1")
    return seconds


def main(argv: Sequence[str] | None = None) -> None:
    """Write the table; an error of the user ends the process with one sentence and status 2."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", nargs="*", type=_parsed, default=[])
    parser.add_argument("--isa", nargs="+", default=["avx512", "avx2"], choices=list(FLAGS))
    parser.add_argument("--seconds", type=_seconds, default=0.1, help="per layer and sparsity")
    parser.add_argument("--out", type=Path, default=CSV, help="the table, read and written")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        _write(options)
    except (UserError, OSError) as error:
        cause = f"{options.out} cannot be written ({error}): name another file as --out"
        sys.stderr.write(f"error: {error if isinstance(error, UserError) else cause}\n")
        sys.exit(2)
    sys.stdout.write(f"costs in {options.out}\n")


def _write(options: argparse.Namespace) -> None:
    """Measure the layers of the existing table and of the command, and write the table."""
    table = load(options.out).costs if options.out.exists() else {}
    known = dict.fromkeys([*(layer for isa in table.values() for layer in isa), *options.layers])
    if not known:
        raise UserError(f"{options.out} does not exist: name its layers by --layers.")
    with atomic_file(options.out) as temporary, temporary.open("w", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows(list(known), options.isa, options.seconds))


if __name__ == "__main__":
    main()
