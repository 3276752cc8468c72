"""GMP: prune the smallest weights in steps along a cubic ramp of sparsity (Zhu & Gupta 2017).

    M_k = the largest |w| among those that M_(k-1) keeps, at sparsity s_k
    w   <- M_k * (w - eta * v),  v the optimiser's step with the gradient M_k * grad L(w)

One ranking over all layers. Pruned weights stay pruned.

Source: Zhu & Gupta 2017, section 3; Gale et al. 2019; Sparse Model Soups, section 3.3 and A.2.
"""

from torch import nn

from pipeline.sparsify._ranking import largest, magnitudes
from pipeline.sparsify.base import GradualSparsifier, SparsifyConfig


class GMP(GradualSparsifier):
    """Prunes at the ends of the ramp's epochs, and trains under the masks in between."""

    def on_train_start(self, model: nn.Module) -> None:
        """Start from the masks of the config."""
        super().on_train_start(model)
        self.zero_pruned()

    def on_gradients(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        """Zero the gradient of pruned weights."""
        self.mask_gradients()

    def on_step_end(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        """Zero pruned weights, which their remaining momentum has moved."""
        self.zero_pruned()

    def on_epoch_end(self, model: nn.Module, epoch: int) -> None:  # noqa: ARG002
        """Take the pruning step of ``epoch``, if it has one."""
        if epoch in self.ramp:
            self.masks = largest(magnitudes(self.weights), self.ramp[epoch], self.masks)
            self.zero_pruned()


def build(config: SparsifyConfig) -> GMP:
    """Return GMP with ``config.pruning_steps`` on the ramp."""
    return GMP(config)
