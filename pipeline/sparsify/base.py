"""What the methods that prune during training share: their goal, and a hook that knows its masks.

A method is a hook of the training loop. When training ends it leaves plain weights, exactly +0.0
where pruned, and says by ``masks`` where that is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.prune.parameters import prunable
from pipeline.prune.ramp import ramp
from pipeline.sparsify.parts.ranking import largest, magnitudes
from pipeline.train.loop import Hook


@dataclass(frozen=True)
class Goal:
    """What to reach; each method reads the options that it knows.

    Attributes: sparsity, fraction in [0, 1) of the prunable weights; epochs, of the whole training;
    begin and end, the epochs after which this part of it begins and ends (by default it is all);
    pruning_steps, refresh (GMP, DPF); penalty (LC); alpha (DST); initial (STR), see there;
    masks, by name, True = kept: those that the part before has left.
    """

    sparsity: float = 0.0
    epochs: int = 1
    begin: int = 0
    end: int | None = None
    pruning_steps: int = 0
    refresh: int = 16
    penalty: float = 0.0
    alpha: float = 0.0
    initial: float = 0.0
    masks: Mapping[str, Tensor] | None = None


class Sparsifier(Hook):
    """A hook that prunes: ``masks`` by name (bool, True = kept) and ``dense`` weights if any."""

    def __init__(self, goal: Goal) -> None:
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

    def on_gradients(self, model: nn.Module, step: int) -> None:
        """Leave the gradients as they are."""

    def on_step_end(self, model: nn.Module, step: int) -> None:
        """Do nothing after a step."""

    def on_epoch_end(self, model: nn.Module, epoch: int) -> None:
        """Do nothing after an epoch."""

    def on_train_end(self, model: nn.Module) -> None:
        """Leave the weights as they are."""

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

    def __init__(self, goal: Goal) -> None:
        super().__init__(goal)
        whole = ramp(goal.sparsity, goal.epochs, goal.pruning_steps)
        end = goal.epochs if goal.end is None else goal.end
        self.ramp = {epoch: level for epoch, level in whole.items() if goal.begin < epoch < end}
        self.level = max((level for at, level in whole.items() if at <= goal.begin), default=0.0)
        self.last = max(whole)  # the epoch of the last step
