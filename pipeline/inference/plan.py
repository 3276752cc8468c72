"""Plan: the steps of the C program for blocks of one size, and the memory of their values."""

import ctypes
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.inference import steps
from pipeline.inference.geometry import kernel_of
from pipeline.inference.layout import LINE, Layout
from pipeline.inference.library import Step
from pipeline.inference.operations import Network, Operation

TORCH = "torch"
SUMS = ("conv", "affine")


@dataclass
class Part:
    """Consecutive steps of the C program, or one PyTorch operation.

    Args:
        steps: of the C program.
        program: the same as an array.
        reads: tensors that the steps read, by their number.
        writes: tensors that the steps write, by their number.
        operation: the PyTorch operation.
    """

    steps: list[Step] = field(default_factory=list)
    program: Any = None
    reads: dict[int, str] = field(default_factory=dict)
    writes: dict[int, str] = field(default_factory=dict)
    operation: Operation | None = None


class Plan:
    """Everything that depends on the images in a block.

    Args:
        network: its operations.
        block: images in a block, a power of 2 up to 16.
        vector: floats of a vector of the kernels.
    """

    def __init__(self, network: Network, block: int, vector: int) -> None:
        self.network, self.block, self.vector = network, block, vector
        self.parts: list[Part] = []
        self.arrays: list[npt.NDArray[Any]] = []  # kept alive: the steps have their addresses
        self.pads = _pads(network, block)
        self.memory = _Memory()
        self.places: dict[str, int] = {}
        self.tensors = {"input"}  # values that exist as tensors
        last = {name: i for i, o in enumerate(network.operations) for name in o.inputs}
        for index, operation in enumerate(network.operations):
            self.add(operation)
            used = {*operation.inputs, operation.output}
            for name in (n for n in used if n in self.places and last.get(n, -1) <= index):
                if name != network.output:
                    self.memory.release(self.layout(name), self.places[name])
        self.tensor(network.output)
        for part in self.parts:
            part.program = (Step * len(part.steps))(*part.steps)

    @property
    def floats(self) -> int:
        """Size of the workspace, with the floats that the last vector may reach."""
        return self.memory.size + 4 * LINE

    def add(self, operation: Operation) -> None:
        """Add the steps of ``operation``."""
        if operation.kind == TORCH:
            for name in operation.inputs:
                self.tensor(name)
            self.parts.append(Part(operation=operation))
            self.tensors.add(operation.output)
            return
        for name in operation.inputs:
            self.blocked(name)
        self.places[operation.output] = self.memory.take(self.layout(operation.output))
        for step in getattr(steps, operation.kind)(self, operation):
            self.part().steps.append(step)

    def blocked(self, name: str) -> None:
        """Make the value ``name`` available in the layout of blocks."""
        if name not in self.places:
            self.places[name] = self.memory.take(self.layout(name))
            step = steps.convert(self, name, steps.LOAD)
            part = self.part()
            part.reads[step.io] = name
            part.steps.append(step)

    def tensor(self, name: str) -> None:
        """Make the value ``name`` available as a tensor."""
        if name in self.places and name not in self.tensors:
            self.tensors.add(name)
            step = steps.convert(self, name, steps.STORE)
            part = self.part()
            part.writes[step.io] = name
            part.steps.append(step)

    def part(self) -> Part:
        """Return the part that steps are added to."""
        if not self.parts or self.parts[-1].operation is not None:
            self.parts.append(Part())
        return self.parts[-1]

    def slot(self) -> int:
        """Return the number of the next tensor of this part."""
        part = self.part()
        return len(part.reads) + len(part.writes)

    def layout(self, name: str) -> Layout:
        """Return the layout of the value ``name``."""
        shape = self.network.shapes[name]
        return Layout(shape.channels, shape.height, shape.width, self.pads[name], self.block)

    def address(self, array: npt.NDArray[Any]) -> int:
        """Return the address of ``array``, which is kept alive."""
        array = np.ascontiguousarray(array)
        self.arrays.append(array)
        return array.ctypes.data


class _Memory:
    """Places in the workspace; only equal layouts share one, so that the padding stays 0."""

    def __init__(self) -> None:
        self.size = 0
        self.free: dict[Any, list[int]] = defaultdict(list)

    def take(self, key: Layout | int) -> int:
        """Return a place for a value of layout ``key``, or for ``key`` floats without padding."""
        if self.free[key]:
            return self.free[key].pop()
        place = self.size
        size = key if isinstance(key, int) else key.size
        self.size += -(-size // LINE) * LINE
        return place

    def release(self, key: Layout | int, place: int) -> None:
        """Let the next value of this layout have ``place``."""
        self.free[key].append(place)


def _pads(network: Network, block: int) -> dict[str, int]:
    """Return the padding of each value: that of its users, or in small blocks one for all."""
    pads = dict.fromkeys(network.shapes, 0)
    for operation in network.operations:
        if operation.kind == "conv":
            source, target = (network.shapes[n] for n in (operation.inputs[0], operation.output))
            kernel = kernel_of(operation)
            single = target.height == target.width == 1
            same = kernel.stride == (1, 1) and source[1:3] == target[1:3]
            pad = kernel.pads(block, single, same)
            pads[operation.inputs[0]] = max(pads[operation.inputs[0]], pad)
    if block < LINE:
        return dict.fromkeys(pads, max(pads.values()))
    pairs = [(o.inputs[1], o.output) for o in network.operations if o.kind in SUMS and o.inputs[1:]]
    while any(pads[a] != pads[b] for a, b in pairs):  # a residual has its sum's layout
        for a, b in pairs:
            pads[a] = pads[b] = max(pads[a], pads[b])
    return pads


def pointer_array(addresses: list[int]) -> Any:
    """Return the C array of ``addresses``."""
    return (ctypes.c_void_p * max(1, len(addresses)))(*addresses)
