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
    """Fuse ``affine`` into one of the operations that compute its inputs; say whether it was."""
    made = {operation.output: operation for operation in network.operations}
    order = {id(operation): i for i, operation in enumerate(network.operations)}
    producers = [made[name] for name in affine.inputs if name in made]
    # Of two inputs the later one takes the other as its residual, which exists by then.
    for producer in sorted(producers, key=lambda operation: -order[id(operation)]):
        if producer.kind not in SUMS or network.users(producer.output) != 1:
            continue
        if _fits(producer, affine):
            _merge(producer, affine)
            network.operations.remove(affine)
            network.shapes.pop(producer.output, None)
            producer.output = affine.output
            return True
        break
    return False


def _fits(producer: Operation, affine: Operation) -> bool:
    bounded = any(producer.settings[end] is not None for end in ("low", "high"))
    residual = len(producer.inputs) > 1
    if len(affine.inputs) > 1:
        # A sum with a scale of its own arises only from fusing; its scale is of the first input.
        return not affine.arrays and not bounded and not residual
    if affine.arrays:
        return not bounded and not residual
    return not bounded


def _merge(producer: Operation, affine: Operation) -> None:
    """Let ``producer`` compute what ``affine`` does."""
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
    before = arrays or {"scale": np.ones(channels), "shift": np.zeros(channels)}
    producer.arrays = {
        "scale": (before["scale"] * scale).astype(np.float32),
        "shift": (before["shift"] * scale + shift).astype(np.float32),
    }
