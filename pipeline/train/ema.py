"""Exponential moving average (EMA) of the weights over steps, as a hook (Morales-Brotons, 2024)."""

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.train.hook import Hook


class AverageSteps(Hook):
    """Replaces the final weights by their exponential moving average over the steps 1, ..., T.

        w_EMA = sum_t d^(T - t) w_t / sum_t d^(T - t)
        m_t = m_{t-1} + a_t (w_t - m_{t-1}),    a_t = (1 - d) / (1 - d^t),    w_EMA = m_T

    The second line computes the first. It is the usual m_t = d m_{t-1} + (1 - d) w_t from m_0 = 0,
    divided by 1 - d^t (Adam's correction of the bias): a_1 = 1, and decay 0 gives the last weights.
    A pruned weight is +0.0 after every step, hence in the average. BatchNorm's statistics do not
    belong to it and must be re-estimated.

    Args:
        decay: d, in [0, 1); the average reaches back over about 1 / (1 - d) steps.

    Raises:
        UserError: a decay out of its range.

    Source: Polyak & Juditsky 1992; Kingma & Ba 2015, section 3 (the correction); Morales-Brotons,
        Vogels & Hendrikx 2024 (EMA of weights in deep learning).
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"ema.decay is {decay}, but must be in [0, 1).")
        self.decay = decay
        self.mean: list[Tensor] = []

    def on_step_end(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        """Move the average towards the weights after a step."""
        weights = [weight.detach() for weight in model.parameters()]
        if not self.mean:
            self.mean, self.power = [weight.clone() for weight in weights], 1.0
        self.power *= self.decay  # d^t
        share = (1 - self.decay) / (1 - self.power)
        torch._foreach_lerp_(self.mean, weights, share)

    def on_train_end(self, model: nn.Module) -> None:
        """Load the average into the model."""
        with torch.no_grad():
            for weight, mean in zip(model.parameters(), self.mean, strict=bool(self.mean)):
                weight.copy_(mean)


def decay_of_window(window: float, steps: int) -> float:
    """Return d = 1 - 1 / max(1, f T): the average reaches back over a fraction f of the steps T.

    A window that is short against the schedule averages weights of nearly one learning rate, which
    the schedule anneals to 0.

    Raises:
        UserError: a window out of its range.
    """
    if not 0 < window <= 1:
        raise UserError(f"ema.window is {window}, but must be in (0, 1].")
    return 1 - 1 / max(1.0, window * steps)
