"""Operations of a compiled network: a list in order, each with one output."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Shape(NamedTuple):
    """Shape [channels, height, width] of one image's value; a vector has height = width = 1."""

    channels: int
    height: int
    width: int
    rank: int = 4  # of the tensor of a batch: [B, C, H, W], or [B, C] for 2


@dataclass
class Operation:
    """One operation; ``inputs`` and ``output`` are names of values.

    The kinds, with out = bounded(..., low, high) in the first two:

        conv      conv2d(inputs[0], weight, bias) + inputs[1], if there is one
        affine    scale * inputs[0] + shift + inputs[1], by channel
        pool      maximum or weighted sum over the window of each output
        concat    the channels of all inputs
        torch     ``call`` on the values as tensors

    Args:
        kind: as above.
        settings: values of JSON.
        arrays: float32.
        call: of a "torch" operation, from the tensors of ``inputs`` to the output.
    """

    kind: str
    inputs: list[str]
    output: str
    settings: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Floats] = field(default_factory=dict)
    call: Callable[..., Any] | None = None


@dataclass
class Network:
    """Operations from the value "input" to the value ``output``, and the shapes of all tensors."""

    operations: list[Operation]
    shapes: dict[str, Shape]
    output: str

    def users(self, name: str) -> int:
        """Return how often the value ``name`` is used, as an output too."""
        used = sum(operation.inputs.count(name) for operation in self.operations)
        return used + (name == self.output)
