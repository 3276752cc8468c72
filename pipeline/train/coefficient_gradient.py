"""Gradient of the loss by the coefficients of a soup, for merge rules that learn them."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.train.modes import evaluating


def slopes(  # noqa: PLR0913
    model: nn.Module,
    ends: Sequence[Sequence[Tensor]],
    weights: Tensor,
    images: Tensor,
    y: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    apart: bool = False,
) -> Tensor:
    """Return the loss's derivatives at theta = sum_i w_i theta_i in the direction of each theta_i.

        s_i = <dL/dtheta, theta_i - theta>

    This is dL/dw_i minus a term common to all i. BatchNorm normalises by the statistics of the
    batch, or of its further images alone, so that the derivatives include how a soup's statistics
    change with its weights. Dropout is off.

    Args:
        model: the network; its parameters are overwritten by theta, its statistics invalid after.
        ends: the parameters theta_1, ..., theta_m, each in the order of ``model.parameters()``.
        weights: float64 [m].
        images: float32 [B + E, C, H, W], normalised; the loss is that of the first B; the others
            only enter the batch's statistics.
        y: labels, int64 [B, ...], or other targets of the loss.
        loss: the mean over the examples, as a function of their outputs and ``y``.
        apart: whether the statistics are those of the E further images alone, as where these are
            augmented.
    """
    parameters = list(model.parameters())
    _load_sum(parameters, ends, weights.tolist())
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    with evaluating(model), ExitStack() as hooks:
        for norm in norms:
            norm.training = not apart
            if apart:
                hooks.callback(norm.register_forward_hook(_by_others(len(y))).remove)
        mean = loss(model(images)[: len(y)], y)
        trained = [theta for theta in parameters if theta.requires_grad]
        gradients = torch.autograd.grad(mean, trained, allow_unused=True, materialize_grads=True)
        for norm in norms:
            norm.training = False
    derivatives = torch.zeros(len(ends), dtype=torch.float64, device=gradients[0].device)
    for number, end in enumerate(ends):
        moved = [each for each, theta in zip(end, parameters, strict=True) if theta.requires_grad]
        for each, theta, gradient in zip(moved, trained, gradients, strict=True):
            derivatives[number] += ((each - theta.detach()).double() * gradient.double()).sum()
    return derivatives.cpu()  # the only wait for the device


def _by_others(count: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """Return a hook that normalises a BatchNorm's inputs by the examples after the first count."""

    def normalised(norm: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> Tensor:
        assert isinstance(norm, _BatchNorm)
        (x,) = inputs
        axes, shape = [0, *range(2, x.ndim)], [1, -1, *([1] * (x.ndim - 2))]
        variance, mean = torch.var_mean(x[count:], axes, correction=0)
        x = (x - mean.view(shape)) * (variance + norm.eps).rsqrt().view(shape)
        if not norm.affine:
            return x
        return x * norm.weight.view(shape) + norm.bias.view(shape)

    return normalised


@torch.no_grad()
def _load_sum(
    parameters: Sequence[Tensor], ends: Sequence[Sequence[Tensor]], weights: Sequence[float]
) -> None:
    """Set theta <- sum_i w_i theta_i, parameter by parameter."""
    for theta, *tensors in zip(parameters, *ends, strict=True):
        theta.copy_(sum(w * each for w, each in zip(weights, tensors, strict=True)))
