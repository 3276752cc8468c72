"""Sparsifier: a hook of the training loop that prunes.

When training ends the model has plain weights, exactly +0.0 where ``masks`` are False.
"""

import torch
from torch import Tensor, nn

from pipeline.prune.prunable import prunable
from pipeline.schedules.sparsity import ramp
from pipeline.sparsify._ranking import largest, magnitudes
from pipeline.sparsify.config import SparsifyConfig
from pipeline.train.hook import Hook

__all__ = ["GradualSparsifier", "Sparsifier", "SparsifyConfig"]


class Sparsifier(Hook):
    """A hook with ``masks`` by name (bool, True = kept), and ``dense`` weights if it has any."""

    def __init__(self, config: SparsifyConfig) -> None:
        self.config = config
        self.masks: dict[str, Tensor] = {}
        self.dense: dict[str, Tensor] = {}

    def on_train_start(self, model: nn.Module) -> None:
        """Collect the prunable weights; masks are all True unless an earlier part has pruned."""
        self.weights = {name: model.get_parameter(name) for name in prunable(model)}
        initial = self.config.masks or {}
        self.masks = {
            name: torch.ones_like(weight, dtype=torch.bool)
            if name not in initial
            else torch.empty_like(weight, dtype=torch.bool).copy_(initial[name])
            for name, weight in self.weights.items()
        }

    @torch.no_grad()
    def zero_pruned(self) -> None:
        """Set w = +0.0 where the masks are False."""
        for name, weight in self.weights.items():
            weight.masked_fill_(~self.masks[name], 0)

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Zero the gradient of pruned weights, so that clipping does not count it."""
        for name, weight in self.weights.items():
            if weight.grad is not None:
                weight.grad.masked_fill_(~self.masks[name], 0)

    def prune_to_sparsity(self) -> None:
        """Keep the largest |w| of one global ranking, at the exact sparsity."""
        self.masks = largest(magnitudes(self.weights), self.config.sparsity)
        self.zero_pruned()


class GradualSparsifier(Sparsifier):
    """A hook that raises the sparsity by the pruning steps in its part of the training.

    ``ramp``: the sparsity after each step of this part, by the epoch at whose end it is taken.
    ``level``: the present sparsity. ``last``: the epoch of the last step of the whole training.
    The step at the end of a part is taken outside it, after the part's copies are averaged.
    """

    def __init__(self, config: SparsifyConfig) -> None:
        super().__init__(config)
        all_steps = ramp(config.sparsity, config.epochs, config.pruning_steps)
        end = config.epochs if config.end is None else config.end
        self.ramp = {
            epoch: level for epoch, level in all_steps.items() if config.begin < epoch < end
        }
        levels = (level for epoch, level in all_steps.items() if epoch <= config.begin)
        self.level = max(levels, default=0.0)
        self.last = max(all_steps)
