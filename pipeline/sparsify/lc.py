"""LC: a growing penalty draws weights to their own pruning (Carreira-Perpinan & Idelbayev 2018).

    C step   theta = w where |w| is among the k largest of the network, else 0
    L step   an optimiser step with the gradient grad L + mu * (w - theta)

The C step costs little and is taken before every L step, so mu * (w - theta) is an extra decay of
all but the k largest weights. In epoch e of E the penalty is mu = mu_0 * 1000^((e - 1) / (E - 1)).

Source: Carreira-Perpinan & Idelbayev 2018, section 3 (quadratic penalty, l0 constraint).
"""

import torch
from torch import nn

from pipeline.sparsify._ranking import largest, magnitudes
from pipeline.sparsify.base import Sparsifier, SparsifyConfig

GROWTH = 1000.0  # from the first epoch to the last


class LC(Sparsifier):
    """Add the penalty's gradient in every step, and prune hard at the end."""

    def __init__(self, goal: SparsifyConfig) -> None:
        super().__init__(goal)
        self.epoch = 1

    @property
    def mu(self) -> float:
        """The penalty of the epoch that runs."""
        return self.goal.lc_mu0 * float(GROWTH ** ((self.epoch - 1) / max(self.goal.epochs - 1, 1)))

    @torch.no_grad()
    def on_gradients(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        """Add mu * (w - theta)."""
        kept = largest(magnitudes(self.weights), self.goal.sparsity)
        for name, weight in self.weights.items():
            if weight.grad is not None:
                weight.grad.add_(weight.masked_fill(kept[name], 0), alpha=self.mu)

    def on_epoch_end(self, model: nn.Module, epoch: int) -> None:  # noqa: ARG002
        """Let the penalty grow."""
        self.epoch = epoch + 1

    def on_train_end(self, model: nn.Module) -> None:  # noqa: ARG002
        """Prune what is left to the exact sparsity."""
        self.prune_hard()


def build(goal: SparsifyConfig) -> LC:
    """Return LC with mu_0 = ``goal.lc_mu0``."""
    return LC(goal)
