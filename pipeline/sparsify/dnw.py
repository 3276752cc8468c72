"""DNW: the forward pass uses the top-k weights, gradients update all (Wortsman et al. 2019).

    M_t     = the k largest |w_t| of the network
    w_(t+1) = w_t - eta * v,  v the optimiser's step with the gradient grad L(M_t * w_t)

The sparsity is the final one from the first iteration on; the set of kept weights is learned.

Source: Wortsman et al. 2019, section 3 (training sparse networks), with one ranking over all
layers, as for every other method here.
"""

from torch import nn

from pipeline.sparsify._ranking import largest, magnitudes
from pipeline.sparsify._straight_through import StraightThrough
from pipeline.sparsify.base import SparsifyConfig


class DNW(StraightThrough):
    """Keeps the largest |w| of the dense weights, anew for every forward pass."""

    def on_train_start(self, model: nn.Module) -> None:
        """Choose the masks of the first forward pass."""
        super().on_train_start(model)
        self.update_masks(0)
        self.apply_masks()

    def update_masks(self, step: int) -> None:  # noqa: ARG002
        """Choose the masks of the next forward pass."""
        self.masks = largest(magnitudes(self.dense), self.config.sparsity)


def build(config: SparsifyConfig) -> DNW:
    """Return DNW at ``config.sparsity``."""
    return DNW(config)
