"""Single-step sharpness-aware minimisation under a mask (S2-SAM; Ji et al., 2024): one pass."""

from typing import Any

import torch
from torch import Tensor

from pipeline.train.sam import ascent, checked, restored
from pipeline.train.step import Step


class SingleStep(Step):
    """A step of SGD with the gradient at weights that the step before says are higher.

        e_1 = 0,    e_t = rho g_{t-1} / ||g_{t-1}||,    g_t = M * dL_t/dw (w_t + e_t)
        w_{t+1} <- SGD(w_t, g_t)

    L_t is the loss of batch t, M the masks, and the norm is that of all parameters together. e_t is
    0 at a pruned weight. There is one pass a step: loss, counts and BatchNorm's statistics are
    those at w_t + e_t. g is taken before clipping, which would not change its direction.

    Args:
        arguments: those of `Step`.
        rho: the norm of e; 0 gives SGD, bit for bit.

    Raises:
        UserError: a rho out of its range.

    Source: Ji et al. 2024, section 2.2 ("prior gradient information"), and the authors' code, which
        takes the gradient of the step before at its moved weights.
    """

    def __init__(self, *arguments: Any, rho: float) -> None:
        self.rho = checked(rho)
        super().__init__(*arguments)
        self.moves = [torch.zeros_like(weight) for weight in self.model.parameters()]  # e_t

    def backward(self, images: Tensor, labels: Tensor) -> None:
        """Set the masked gradients at w + e, and make of them the e of the next step."""
        weights: list[Tensor] = list(self.model.parameters())
        with restored(weights):
            with torch.no_grad():
                torch._foreach_add_(weights, self.moves)
            super().backward(images, labels)
        pairs = [
            (move, weight.grad)
            for move, weight in zip(self.moves, weights, strict=True)
            if weight.grad is not None
        ]
        gradients = [gradient for _, gradient in pairs]
        torch._foreach_copy_([move for move, _ in pairs], ascent(gradients, self.rho))

    def state(self) -> list[Tensor]:
        """Return every tensor that a step changes and a later one reads."""
        return [*super().state(), *self.moves]


STEP = SingleStep
