"""How a network's loss changes towards each of several others: what learns a soup's weights."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.train.predict import evaluating


def slopes(
    model: nn.Module,
    ends: Sequence[Sequence[Tensor]],
    weights: Tensor,
    images: Tensor,
    y: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Return the derivatives of the loss at theta = sum_i w_i theta_i towards every theta_i.

        s_i = <dL/dtheta, theta_i - theta>

    which is dL/dw_i less a term common to all i. BatchNorm normalises by the statistics of the
    batch, so that the derivatives know that a soup's statistics move with its weights. Dropout is
    off.

    Args:
        model: gives the network; its parameters become theta, its statistics mean nothing after.
        ends: the parameters theta_1, ..., theta_m, each in the order of ``model.parameters()``.
        weights: float64 [m].
        images: float32 [B + E, C, H, W], normalised; the loss is that of the first B, the others
            only take part in the batch's statistics.
        y: what the loss compares the outputs with: labels, int64 [B, ...], or other targets.
        loss: the mean over the examples, as a function of their outputs and ``y``.
    """
    parameters = list(model.parameters())
    with torch.no_grad():
        for place, *tensors in zip(parameters, *ends, strict=True):
            place.copy_(sum(w * each for w, each in zip(weights.tolist(), tensors, strict=True)))
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    with evaluating(model):
        for norm in norms:
            norm.training = True
        mean = loss(model(images)[: len(y)], y)
        gradients = torch.autograd.grad(mean, parameters)
        for norm in norms:
            norm.training = False
    found = torch.zeros(len(ends), dtype=torch.float64, device=gradients[0].device)
    for number, end in enumerate(ends):
        for each, place, gradient in zip(end, parameters, gradients, strict=True):
            found[number] += ((each - place.detach()).double() * gradient.double()).sum()
    return found.cpu()  # the one number that the host waits for
