"""DST: every output channel has a learned magnitude threshold (Liu et al. 2020).

    Q_ij = |w_ij| - t_i        M = S(Q), 1 where Q >= 0        forward at M * w

In the backward pass the step S has the surrogate derivative

    H(Q) = 2 - 4 |Q| where |Q| <= 0.4,  0.4 where |Q| <= 1,  else 0

so that with G = dL/d(M * w):  dL/dw = G * (M + w * H(Q) * sign(w))  and  dL/dt_i = -sum_j G w H(Q).
The regulariser alpha * sum(exp(-t)), added to the loss, raises the thresholds. A layer that keeps
less than a hundredth of its weights has its thresholds reset to 0. The sparsity is a result.

Source: Liu et al. 2020, equations 1 to 5 and section 3.
"""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.sparsify._reparametrised import Reparametrised
from pipeline.sparsify.base import SparsifyConfig

MIN_DENSITY = 0.01  # of a layer's weights


class UnitStep(torch.autograd.Function):
    """The unit step with its long-tailed surrogate derivative."""

    @staticmethod
    def forward(ctx: Any, excess: Tensor) -> Tensor:
        """Return 1 where Q >= 0, else 0."""
        ctx.save_for_backward(excess)
        return (excess >= 0).to(excess.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Multiply by H(Q)."""
        size = ctx.saved_tensors[0].abs()
        tail = 0.4 * (size <= 1).to(size.dtype)
        return gradients[0] * torch.where(size <= 0.4, 2 - 4 * size, tail)


class Threshold(nn.Module):
    """w -> S(|w| - t) * w with one t an output channel, initially 0."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        shape = [weight.shape[0], *[1] * (weight.dim() - 1)]
        self.t = nn.Parameter(weight.new_zeros(shape))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the masked weight."""
        mask: Tensor = UnitStep.apply(weight.abs() - self.t)
        return mask * weight


class DST(Reparametrised):
    """Thresholds as parameters, with the gradient of their regulariser and the reset."""

    @torch.no_grad()
    def on_gradients(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        """Add d/dt alpha * sum(exp(-t)) = -alpha * exp(-t)."""
        for function in self.functions.values():
            threshold = function.get_parameter("t")
            if threshold.grad is not None:
                threshold.grad.sub_(torch.exp(-threshold), alpha=self.config.dst_alpha)

    @torch.no_grad()
    def on_step_end(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        """Reset the thresholds of a layer that keeps less than a hundredth of its weights."""
        for name, function in self.functions.items():
            weight, threshold = self.weights[name], function.get_parameter("t")
            density = (weight.abs() >= threshold).float().mean()
            threshold.masked_fill_(density < MIN_DENSITY, 0)  # without a read by the host


def build(config: SparsifyConfig) -> DST:
    """Return DST with the regulariser's weight ``config.dst_alpha``."""
    return DST(config, Threshold)
