"""Symmetric quantisation of weights, with a scale for each output channel, simulated in float32."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.storage.checkpoint import Checkpoint

BITS = range(2, 17)


def quantise(weight: Tensor, bits: int) -> Tensor:
    """Return ``weight`` at the nearest multiples of its channels' scales.

        s_o = max_i |w_oi| / (2^(b-1) - 1),    w^_oi = s_o round(w_oi / s_o)

    The integers lie in [-(2^(b-1) - 1), 2^(b-1) - 1]; halves are rounded to even. Zeros stay
    exactly zero, so a mask still holds; small weights may become zero too. A channel of zeros
    stays as it is. Quantised weights stay as they are, bit for bit.

    Args:
        weight: float [O, ...]; output channels are the first dimension (of a transposed
            convolution the input channels).
        bits: b, in [2, 16].

    Raises:
        UserError: ``bits`` is outside [2, 16], or a weight is not finite.

    Source: Krishnamoorthi 2018, Quantizing deep convolutional networks for efficient inference,
        Sections 2.2 and 3.1 (symmetric, per channel).
    """
    if bits not in BITS:
        raise UserError(f"bits is {bits}, but must be in [2, 16]: use 8 or 4, for example.")
    if not weight.isfinite().all():
        raise UserError(
            "a weight is NaN or infinity, so training diverged: lower the learning rate."
        )
    exact = weight.double()
    levels = 2 ** (bits - 1) - 1
    scale = exact.abs().flatten(1).amax(1) / levels
    scale = torch.where(scale > 0, scale, 1).view(-1, *[1] * (weight.ndim - 1))
    return ((exact / scale).round() * scale).to(weight.dtype)


def quantise_checkpoint(checkpoint: Checkpoint, names: Iterable[str], bits: int) -> Checkpoint:
    """Return ``checkpoint`` with the weights ``names`` quantised; other tensors stay float32."""
    new = {name: quantise(checkpoint.state[name], bits) for name in names}
    return Checkpoint({**checkpoint.state, **new}, checkpoint.masks, checkpoint.meta)


def rounding(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], names: Iterable[str]
) -> dict[str, float]:
    """Return the relative error ||w - w^|| / ||w||, and the share of nonzeros that became zero."""
    error = norm = nonzeros = zeroed = 0.0
    for name in names:
        old, new = before[name].double(), after[name].double()
        error += float((old - new).square().sum())
        norm += float(old.square().sum())
        nonzeros += int(old.count_nonzero())
        zeroed += int(((old != 0) & (new == 0)).sum())
    return {
        "relative_error": (error / norm) ** 0.5 if norm else 0.0,
        "rounded_to_zero": zeroed / nonzeros if nonzeros else 0.0,
    }
