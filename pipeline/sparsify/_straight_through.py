"""Straight-through estimator: the masked network's gradient is applied to the dense weights."""

import torch
from torch import nn

from pipeline.sparsify.base import Sparsifier


class StraightThrough(Sparsifier):
    """Forward and backward passes use M * w; the optimiser's step with decay updates the dense w.

        w <- w - eta * (grad L(M * w) + lambda * w)

    The model's parameters hold M * w, and the dense w only during the optimiser's step.
    """

    def on_train_start(self, model: nn.Module) -> None:
        """Copy the model's weights as the dense ones."""
        super().on_train_start(model)
        self.dense = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.apply_masks()

    @torch.no_grad()
    def on_gradients(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        """Write the dense weights into the model for the optimiser's step."""
        for name, weight in self.weights.items():
            weight.copy_(self.dense[name])

    @torch.no_grad()
    def on_step_end(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        """Copy the updated dense weights and write M * w into the model."""
        for name, weight in self.weights.items():
            self.dense[name].copy_(weight)
        self.update_masks(step)
        self.apply_masks()

    def update_masks(self, step: int) -> None:
        """Choose the masks of the next forward pass from the dense weights after ``step``."""

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Set the model's weights to M * w."""
        for name, weight in self.weights.items():
            weight.copy_(self.dense[name].masked_fill(~self.masks[name], 0))
