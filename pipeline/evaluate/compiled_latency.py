"""Time of a compiled network's pass, compared with PyTorch's dense pass of the same network."""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.evaluate.speedup import BATCHES, latencies, relative_difference
from pipeline.inference.compiled import SparseNetwork, compile  # noqa: A004
from pipeline.inference.library import required_library
from pipeline.process import cpu_name
from pipeline.train.modes import evaluating

TOLERANCE = 1e-4


def compiled_latency(model: nn.Module, images: Tensor, seconds: float = 5.0) -> dict[str, Any]:
    """Compile ``model`` for one thread, compare its outputs, and measure both networks' passes.

    Args:
        model: an image classifier on the CPU, left unchanged.
        images: normalised, float32 [N, C, H, W]; the first of them are timed, repeated if few.
        seconds: duration of the measurement of one batch size.

    Returns:
        ``difference`` (`output_difference`), ``isa`` (the instruction set of the kernels),
        ``cpu``, and ``latency``, {batch_B: {dense_ms, compiled_ms, speedup}}, for batches of
        B = 1 and 64 images: medians of passes that alternate, in milliseconds a batch.

    Raises:
        UserError: the network cannot be compiled, its outputs differ, or this machine has no C
            compiler; the result would be cached, and DVC knows nothing of compilers.
    """
    isa = required_library().isa
    compiled = compile(model, images.shape[1:])
    with evaluating(model), torch.inference_mode():
        difference = output_difference(model(images), compiled(images))
    return {
        "difference": difference,
        "isa": isa,
        "cpu": cpu_name(),
        "latency": {
            f"batch_{size}": _times(model, compiled, images, size, seconds) for size in BATCHES
        },
    }


def output_difference(dense: Tensor, compiled: Tensor) -> float:
    """Return `relative_difference` of the logits of the two networks.

    Raises:
        UserError: it is above 1e-4.
    """
    difference = relative_difference(dense, compiled)
    if not difference <= TOLERANCE:
        raise UserError(
            f"the compiled network differs from PyTorch by {difference:g} of the largest logit, "
            f"but must be equal to {TOLERANCE:g}: leave the study latency out."
        )
    return difference


def _times(
    model: nn.Module, compiled: SparseNetwork, images: Tensor, size: int, seconds: float
) -> dict[str, float]:
    batch = images.repeat(-(-size // len(images)), 1, 1, 1)[:size].contiguous()
    taken = latencies({"dense": model, "compiled": compiled}, batch, seconds)
    return {
        "dense_ms": 1000 * taken["dense"],
        "compiled_ms": 1000 * taken["compiled"],
        "speedup": taken["dense"] / taken["compiled"],
    }
