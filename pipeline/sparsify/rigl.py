"""RigL: sparse from the first step on; every layer drops and grows connections (Evci et al. 2020).

The first masks are random, with the counts K_l of an Erdős-Rényi kernel (ERK). In the iterations
t = dt, 2 dt, ... before T_end an update of the masks takes the place of the optimiser's step:

    f(t) = alpha / 2 * (1 + cos(pi t / T_end)),  k_l = floor(f(t) K_l)
    drop   the k_l smallest |w| among the active connections of layer l
    grow   the k_l largest |grad L| among those that are inactive now, the dropped ones included

New connections start from 0 without momentum. One that is dropped and grown at once goes on with
its weight and its momentum, as in the authors' code. Every other iteration is a step with the
gradient M * grad L(w), so every layer keeps exactly K_l weights. From T_end on the masks are fixed.

Source: Evci et al. 2020, section 3 and Algorithm 1; the authors' github.com/google-research/rigl.
"""

import math

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.prune.allocations import erk
from pipeline.schedules.sparsity import whole_epochs
from pipeline.sparsify._masked import Masked
from pipeline.sparsify._ranking import top
from pipeline.sparsify.base import SparsifyConfig
from pipeline.sparsify.config import valid_interval

INTERVAL = 100  # iterations, the authors' dt
SHORTEST = 10  # iterations, of the default
UPDATES = 20  # with the default, in a training too short for so many at intervals of 100


class RigL(Masked):
    """Updates the masks every ``interval`` iterations before iteration ``end``."""

    def __init__(self, config: SparsifyConfig) -> None:
        super().__init__(config)
        _check(config)
        self.end = config.epoch_steps * whole_epochs(config.rigl_end, config.epochs)
        default = min(INTERVAL, max(SHORTEST, self.end // UPDATES))
        self.interval = config.rigl_interval or default

    def on_train_start(self, model: nn.Module) -> None:
        """Draw the first masks, unless an earlier part has some."""
        super().on_train_start(model)
        masks = self.config.masks or self._random()
        for name, mask in self.masks.items():
            mask.copy_(masks[name])
        self.counts = {name: int(masks[name].count_nonzero()) for name in self.masks}
        self.zero_pruned()

    def on_gradients(self, model: nn.Module, step: int) -> None:
        """Update the masks in an iteration that does so; zero the gradient of pruned weights."""
        if self._updates_at(step):
            self.update_masks(step)
            tensors = [*self.parameters, *self.momenta(self.parameters)]
            self.before = {tensor: tensor.detach().clone() for tensor in tensors}
        super().on_gradients(model, step)

    @torch.no_grad()
    def on_step_end(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        """Undo the optimiser's step after an update of the masks."""
        if self._updates_at(step):
            for tensor, value in self.before.items():
                tensor.copy_(value)
            del self.before

    def update_masks(self, step: int) -> None:
        """Drop and grow connections by the dense gradients of ``step``."""
        share = self.config.rigl_alpha / 2 * (1 + math.cos(math.pi * step / self.end))
        for name, weight in self.weights.items():
            count = math.floor(share * self.counts[name])
            if count and weight.grad is not None:
                stay = top(weight.detach().abs(), self.counts[name] - count, self.masks[name])
                self.masks[name] = stay | top(weight.grad.abs(), count, ~stay)
        self.apply_masks()

    def _updates_at(self, step: int) -> bool:
        return step % self.interval == 0 and step < self.end

    def _random(self) -> dict[str, Tensor]:
        """Return masks with ERK's counts, drawn uniformly in each layer, on the CPU."""
        generator = torch.Generator().manual_seed(self.config.seed)
        scores = {
            name: torch.rand(weight.shape, generator=generator)
            for name, weight in self.weights.items()
        }
        alive = {name: torch.ones(score.shape, dtype=torch.bool) for name, score in scores.items()}
        return erk.masks(scores, self.config.sparsity, alive)


def _check(config: SparsifyConfig) -> None:
    if not 0 <= config.rigl_alpha <= 1:
        raise UserError(f"sparsify.rigl_alpha is {config.rigl_alpha:g}, but must be in [0, 1]")
    if not 0 < config.rigl_end <= 1:
        raise UserError(f"sparsify.rigl_end is {config.rigl_end:g}, but must be in (0, 1]")
    try:
        valid_interval(config.rigl_interval)
    except ValueError as must:
        raise UserError(
            f"sparsify.rigl_interval is {config.rigl_interval}, but must be {must}"
        ) from must


def build(config: SparsifyConfig) -> RigL:
    """Return RigL with ``config.rigl_alpha``, ``rigl_interval`` and ``rigl_end``."""
    return RigL(config)
