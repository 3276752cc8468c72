"""Training under masks that may change: pruned weights have no gradient and no momentum."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pipeline.sparsify.base import Sparsifier


class Masked(Sparsifier):
    """Keeps w = +0.0, and its gradient and momentum 0, wherever the masks are False.

        g <- M * g,  so that v <- mu v + g + lambda w and w <- w - eta v are 0 where both are

    A weight that returns therefore starts from 0, without momentum.
    """

    def on_train_start(self, model: nn.Module) -> None:
        """Start from the masks of the config."""
        super().on_train_start(model)
        self.parameters = list(model.parameters())
        self.zero_pruned()

    def on_optimiser(self, optimiser: torch.optim.Optimizer) -> None:
        """Zero the momentum that weights had when they were pruned between two parts."""
        self.optimiser = optimiser
        self.apply_masks()

    def on_gradients(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        """Zero the gradient of pruned weights."""
        self.mask_gradients()

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Zero the pruned weights and their momentum."""
        self.zero_pruned()
        for name, weight in self.weights.items():
            for momentum in self.momenta([weight]):
                momentum.masked_fill_(~self.masks[name], 0)

    def momenta(self, parameters: Iterable[Tensor]) -> list[Tensor]:
        """Return the momentum of those ``parameters`` that have some."""
        states = (self.optimiser.state.get(parameter, {}) for parameter in parameters)
        buffers = (state.get("momentum_buffer") for state in states)
        return [buffer for buffer in buffers if buffer is not None]
