"""LC: a growing penalty pulls the weights to their projection (Carreira-Perpinan & Idelbayev 2018).

    C step   theta = w where |w| is among the k largest of the network, else 0
    L step   an optimiser step with the gradient grad L + mu * (w - theta)

The C step (compression) is cheap and precedes every L step (learning), so mu * (w - theta) is an
extra decay of all but the k largest weights. In epoch e of E, mu = mu_0 * 1000^((e - 1) / (E - 1)).

Source: Carreira-Perpinan & Idelbayev 2018, section 3 (quadratic penalty, l0 constraint).
"""

import torch
from torch import nn

from pipeline.sparsify._ranking import largest, magnitudes
from pipeline.sparsify.base import Sparsifier, SparsifyConfig

GROWTH = 1000.0  # from the first epoch to the last


class LC(Sparsifier):
    """Adds the penalty's gradient in every step, and prunes at the end."""

    def __init__(self, config: SparsifyConfig) -> None:
        super().__init__(config)
        self.epoch = 1

    @property
    def mu(self) -> float:
        """The penalty of the present epoch."""
        return self.config.lc_mu0 * float(
            GROWTH ** ((self.epoch - 1) / max(self.config.epochs - 1, 1))
        )

    @torch.no_grad()
    def on_gradients(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        """Add mu * (w - theta)."""
        kept = largest(magnitudes(self.weights), self.config.sparsity)
        for name, weight in self.weights.items():
            if weight.grad is not None:
                weight.grad.add_(weight.masked_fill(kept[name], 0), alpha=self.mu)

    def on_epoch_end(self, model: nn.Module, epoch: int) -> None:  # noqa: ARG002
        """Count the epoch, by which the penalty grows."""
        self.epoch = epoch + 1

    def on_train_end(self, model: nn.Module) -> None:  # noqa: ARG002
        """Prune to the exact sparsity by |w|."""
        self.prune_to_sparsity()


def build(config: SparsifyConfig) -> LC:
    """Return LC with mu_0 = ``config.lc_mu0``."""
    return LC(config)
