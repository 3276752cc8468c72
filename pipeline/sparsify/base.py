"""What the methods that prune during training share: a hook that knows its masks.

A method is a hook of the training loop. When training ends it leaves plain weights, exactly +0.0
where pruned, and says by ``masks`` where that is.
"""

import torch
from torch import Tensor, nn

from pipeline.prune.prunable import prunable
from pipeline.schedules.sparsity import ramp
from pipeline.sparsify._ranking import largest, magnitudes
from pipeline.sparsify.config import SparsifyConfig
from pipeline.train.hook import Hook

__all__ = ["Gradual", "Sparsifier", "SparsifyConfig"]


class Sparsifier(Hook):
    """A hook that prunes: ``masks`` by name (bool, True = kept) and ``dense`` weights if any."""

    def __init__(self, goal: SparsifyConfig) -> None:
        self.goal = goal
        self.masks: dict[str, Tensor] = {}
        self.dense: dict[str, Tensor] = {}

    def on_train_start(self, model: nn.Module) -> None:
        """Find the prunable weights; all are kept unless an earlier part has pruned."""
        self.weights = {name: model.get_parameter(name) for name in prunable(model)}
        given = self.goal.masks or {}
        self.masks = {
            name: torch.ones_like(weight, dtype=torch.bool)
            if name not in given
            else torch.empty_like(weight, dtype=torch.bool).copy_(given[name])
            for name, weight in self.weights.items()
        }

    @torch.no_grad()
    def zero_pruned(self) -> None:
        """Set w = +0.0 wherever the masks prune."""
        for name, weight in self.weights.items():
            weight.masked_fill_(~self.masks[name], 0)

    def prune_hard(self) -> None:
        """Keep the largest |w| of the whole network, as many as the sparsity leaves."""
        self.masks = largest(magnitudes(self.weights), self.goal.sparsity)
        self.zero_pruned()


class Gradual(Sparsifier):
    """A hook that climbs a ramp of pruning steps, within its part of the training.

    ``ramp``: the sparsity after each step of this part, by the epoch at whose end it is taken.
    ``level``: the sparsity that has been reached. The step at which a part ends is not its own: it
    is taken when the copies of the part have been averaged.
    """

    def __init__(self, goal: SparsifyConfig) -> None:
        super().__init__(goal)
        whole = ramp(goal.sparsity, goal.epochs, goal.pruning_steps)
        end = goal.epochs if goal.end is None else goal.end
        self.ramp = {epoch: level for epoch, level in whole.items() if goal.begin < epoch < end}
        self.level = max((level for at, level in whole.items() if at <= goal.begin), default=0.0)
        self.last = max(whole)  # the epoch of the last step
