"""Sharpness-aware minimisation (SAM) under a mask, in two passes a step (Foret et al., 2021)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from pipeline.errors import UserError
from pipeline.train.step import Step

TINY = 1e-12


class SharpnessAware(Step):
    """A step of SGD with the gradient at the weights where the loss is highest nearby.

        e = rho g / ||g||,    g = M * dL/dw (w)
        w <- SGD(w, M * dL/dw (w + e))

    L is the loss of the batch, M the masks, and the norm is that of all parameters together. e is 0
    at a pruned weight, which is +0.0 in both passes and after the step. The first pass alone gives
    the loss and the counts of the history and moves BatchNorm's statistics: buffers are restored
    after the second. Dropout draws anew in the second pass. Nothing needs the host, so the step can
    be captured.

    Args:
        arguments: those of `Step`.
        rho: the norm of e; 0 gives SGD (without dropout), bit for bit.

    Raises:
        UserError: a rho out of its range.

    Source: Foret et al. 2021, Algorithm 1 and equation 2 with p = 2, on the kept weights.
    """

    def __init__(self, *arguments: Any, rho: float) -> None:
        self.rho = checked(rho)
        super().__init__(*arguments)

    def backward(self, images: Tensor, labels: Tensor) -> None:
        """Set the masked gradients at w + e, and add to ``sums`` what the pass at w gives."""
        super().backward(images, labels)
        weights: list[Tensor] = [p for p in self.model.parameters() if p.grad is not None]
        gradients = [p.grad for p in weights if p.grad is not None]
        with restored([*self.model.parameters(), *self.model.buffers(), self.sums]):
            with torch.no_grad():
                torch._foreach_add_(weights, ascent(gradients, self.rho))
            super().backward(images, labels)


STEP = SharpnessAware


def checked(rho: float) -> float:
    """Return ``rho``, which must not be negative."""
    if not 0 <= rho < inf:
        raise UserError(f"retrain.rho is {rho}, but must be at least 0.")
    return rho


def ascent(gradients: Sequence[Tensor], rho: float) -> list[Tensor]:
    """Return rho g / ||g||, with the norm of all ``gradients`` together; 0 where all are 0."""
    scale = rho / (get_total_norm(gradients) + TINY)
    return list(torch._foreach_mul(list(gradients), scale))


@contextmanager
def restored(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Give ``tensors`` the bits again that they had before the block."""
    before = [tensor.detach().clone() for tensor in tensors]
    yield
    with torch.no_grad():
        torch._foreach_copy_(list(tensors), before)
