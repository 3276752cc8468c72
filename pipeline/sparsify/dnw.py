"""DNW: only the largest weights take part, yet the gradient reaches all (Wortsman et al. 2019).

    M_t     = the k largest |w_t| of the network
    w_(t+1) = w_t - eta * v,  v the optimiser's step with the gradient grad L(M_t * w_t)

The sparsity is the final one from the first iteration on; which weights make it up is discovered.

Source: Wortsman et al. 2019, section 3 (training sparse networks), with one ranking over all
layers, as for every other method here.
"""

from torch import nn

from pipeline.sparsify._ranking import largest, magnitudes
from pipeline.sparsify._straight_through import StraightThrough
from pipeline.sparsify.base import SparsifyConfig


class DNW(StraightThrough):
    """Choose the largest weights before every forward pass."""

    def on_train_start(self, model: nn.Module) -> None:
        """Choose them for the first."""
        super().on_train_start(model)
        self.update_masks(0)
        self.apply_masks()

    def update_masks(self, step: int) -> None:  # noqa: ARG002
        """Choose them for the next."""
        self.masks = largest(magnitudes(self.dense), self.goal.sparsity)


def build(goal: SparsifyConfig) -> DNW:
    """Return DNW at ``goal.sparsity``."""
    return DNW(goal)
