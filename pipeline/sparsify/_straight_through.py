"""Train the dense weights by what the pruned network feels: the straight-through estimator."""

import torch
from torch import nn

from pipeline.sparsify.base import Sparsifier


class StraightThrough(Sparsifier):
    """Forward and backward at mask * w, the optimiser's step, decay included, on the dense w.

    The model's parameters hold mask * w, and the dense w only while the optimiser steps, so the
    gradient at mask * w reaches every weight: w <- w - eta * (grad L(mask * w) + lambda * w).
    """

    def on_train_start(self, model: nn.Module) -> None:
        """Take the model's weights as the dense ones."""
        super().on_train_start(model)
        self.dense = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.apply_masks()

    @torch.no_grad()
    def on_gradients(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        """Put the dense weights where the optimiser finds them."""
        for name, weight in self.weights.items():
            weight.copy_(self.dense[name])

    @torch.no_grad()
    def on_step_end(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        """Take the dense weights back, and leave mask * w."""
        for name, weight in self.weights.items():
            self.dense[name].copy_(weight)
        self.update_masks(step)
        self.apply_masks()

    def update_masks(self, step: int) -> None:
        """Choose the masks of the next forward pass from the dense weights after ``step``."""

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Set the model's weights to mask * w."""
        for name, weight in self.weights.items():
            weight.copy_(self.dense[name].masked_fill(~self.masks[name], 0))
