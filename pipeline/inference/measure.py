"""Measurement of the table of costs, as a command.

    python -m pipeline.inference.measure                     # writes pipeline/inference/costs.csv
    python -m pipeline.inference.measure --networks resnet18:32 --isa avx512 --out costs.csv

It times the kernels on one thread for every shape of the convolutions of ``--networks``
(NAME:SIZE), at each sparsity with random masks, in blocks of 16 images: the fastest of many runs,
which other processes on the core change least.
"""

import argparse
import csv
import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from pipeline.errors import UserError
from pipeline.inference import steps
from pipeline.inference.costs import CSV, NUMBERS, Layer
from pipeline.inference.layout import LINE
from pipeline.inference.library import FLAGS, VARIABLE, Step, library
from pipeline.inference.lower import lower
from pipeline.inference.network import aligned
from pipeline.inference.operations import Floats, Network, Operation, Shape
from pipeline.inference.plan import Plan
from pipeline.models.build import build
from pipeline.storage.atomic_files import atomic_file

NETWORKS = ("resnet18:32", "resnet20:32", "wrn20:32", "torchvision.resnet50:224")
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
KERNELS = (steps.CONV, steps.DENSE, steps.GATHER)


def layers(networks: Sequence[str]) -> list[Layer]:
    """Return the shapes of the convolutions of ``networks``, NAME:SIZE, each once."""
    found = []
    for text in networks:
        name, _, size = text.partition(":")
        if not size.isdigit():
            raise UserError(f"--networks has {text!r} but must be NAME:SIZE, as in resnet18:32.")
        network = lower(build(name, 10), (3, int(size), int(size)))
        for operation in network.operations:
            if operation.kind == "conv" and operation.settings["groups"] == 1:
                found.append(_layer(network, operation))
    return list(dict.fromkeys(layer for layer in found if layer.height > 1))


def _layer(network: Network, operation: Operation) -> Layer:
    outputs, inputs, kernel, _ = operation.arrays["weight"].shape
    _, height, width, _ = network.shapes[operation.inputs[0]]
    return Layer(kernel, operation.settings["stride"][0], inputs, outputs, height, width)


def measure(layer: Layer, sparsity: float | None, seconds: float) -> float:
    """Return the fastest time of the layer's kernel, in microseconds an image.

    Args:
        layer: its shape.
        sparsity: of a random mask; None for the dense kernel.
        seconds: to repeat it for.
    """
    kernels = library()
    if kernels is None:
        raise UserError("costs cannot be measured without a C compiler: install gcc or clang.")
    network = _single(layer, sparsity)
    plan = Plan(network, LINE, kernels.vector)
    workspace = aligned(plan.floats)
    chosen = [step for step in plan.parts[0].steps if step.kind in KERNELS]
    program = (Step * len(chosen))(*chosen)
    best, begin = float("inf"), perf_counter()
    while perf_counter() - begin < seconds:
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


def rows(options: argparse.Namespace) -> Iterator[dict[str, str | int]]:
    """Yield the rows of the table."""
    for isa in options.isa:
        os.environ[VARIABLE] = isa
        for layer in layers(options.networks):
            for sparsity in (None, *SPARSITIES):
                cost = measure(layer, sparsity, options.seconds)
                numbers = {name: getattr(layer, name) for name in NUMBERS}
                name = "dense" if sparsity is None else f"{sparsity:g}"
                yield {"isa": isa, **numbers, "sparsity": name, "microseconds": f"{cost:.4g}"}


def main(argv: Sequence[str] | None = None) -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="NAME:SIZE")
    parser.add_argument("--isa", nargs="+", default=["avx512", "avx2"], choices=list(FLAGS))
    parser.add_argument("--seconds", type=float, default=0.05, help="per shape and sparsity")
    parser.add_argument("--out", type=Path, default=CSV)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    fields = ["isa", *NUMBERS, "sparsity", "microseconds"]
    with atomic_file(options.out) as temporary, temporary.open("w", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        writer.writeheader()
        for row in rows(options):
            writer.writerow(row)
    sys.stdout.write(f"costs in {options.out}\n")


if __name__ == "__main__":
    main()
