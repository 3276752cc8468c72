"""Fusion: BatchNorm into weights; residual addition and ReLU into the operation before them.

Each rule replaces an operation P whose only user is an affine operation A by one operation:

    conv, then scale and shift       weight' = scale * weight, bias' = scale * bias + shift
    conv or affine, then + another   the other value is the residual
    conv or affine, then bounds      bounded by them
"""

from typing import Any

import numpy as np

from pipeline.inference.operations import Network, Operation

SUMS = ("conv", "affine")


def fuse(network: Network) -> None:
    """Apply the rules in order until none applies; ``network`` is changed in place."""
    position = 0
    while position < len(network.operations):
        operation = network.operations[position]
        if operation.kind == "affine" and _into_producer(network, operation):
            position = 0
        else:
            position += 1


def _into_producer(network: Network, affine: Operation) -> bool:
    """Fuse ``affine`` into the operation that computes its input; say whether it was.

    Of two inputs the one that is computed later takes the other as its residual.
    """
    producer = next((o for o in reversed(network.operations) if o.output in affine.inputs), None)
    if producer is None or producer.kind not in SUMS or network.users(producer.output) != 1:
        return False
    if not _fits(producer, affine):
        return False
    _merge(producer, affine)
    network.operations.remove(affine)
    del network.shapes[producer.output]
    producer.output = affine.output
    return True


def _fits(producer: Operation, affine: Operation) -> bool:
    """Say whether ``producer`` can compute ``affine`` too: it scales, then adds, then bounds."""
    if any(producer.settings[end] is not None for end in ("low", "high")):
        return False
    if len(affine.inputs) > 1:
        return len(producer.inputs) == 1 and not affine.arrays
    return not affine.arrays or len(producer.inputs) == 1


def _merge(producer: Operation, affine: Operation) -> None:
    """Let ``producer`` compute ``affine`` too."""
    if affine.arrays:
        scale, shift = (affine.arrays[name].astype(np.float64) for name in ("scale", "shift"))
        _scale(producer, scale, shift)
    others = [name for name in affine.inputs if name != producer.output]
    producer.inputs = producer.inputs[:1] + (producer.inputs[1:] or others)
    bounds: dict[str, Any] = {end: affine.settings[end] for end in ("low", "high")}
    producer.settings |= bounds


def _scale(producer: Operation, scale: Any, shift: Any) -> None:
    arrays = producer.arrays
    if producer.kind == "conv":
        weight = arrays["weight"] * scale.reshape(-1, 1, 1, 1)
        arrays |= {"weight": weight.astype(np.float32)}
        arrays |= {"bias": (arrays["bias"] * scale + shift).astype(np.float32)}
        return
    channels = len(scale)
    ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    before = arrays or {"scale": ones, "shift": zeros}
    producer.arrays = {
        "scale": (before["scale"] * scale).astype(np.float32),
        "shift": (before["shift"] * scale + shift).astype(np.float32),
    }
