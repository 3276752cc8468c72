"""What the methods that prune during training share: their goal, and a hook that knows its masks.

A method is a hook of the training loop. When training ends it leaves plain weights, exactly +0.0
where pruned, and says by ``masks`` where that is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.prune.parameters import prunable
from pipeline.sparsify.parts.ranking import largest, magnitudes
from pipeline.train.hook import Hook


@dataclass(frozen=True)
class Goal:
    """What to reach; each method reads the options that it knows.

    Attributes: sparsity, fraction in [0, 1) of the prunable weights; epochs, of the whole training;
    pruning_steps, refresh (GMP, DPF); penalty (LC); alpha (DST); initial (STR), see there;
    masks, by name, True = kept: held as they are, in place of what the method would choose.
    """

    sparsity: float = 0.0
    epochs: int = 1
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
        """Find the prunable weights; all are kept unless the goal says otherwise."""
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
