"""DPF: GMP's ramp, with pruned weights that keep learning and may return (Lin et al. 2020).

    w <- w - eta * v,  v the optimiser's step with the gradient grad L(M * w) on the dense w
    M  = the largest |w| at sparsity s_k, chosen again every ``mask_interval`` iterations

and the final network is M * w. The sparsity s_k rises at GMP's pruning steps; the interval between
two of them is a phase. The mask is refreshed within a phase too, but not after the last step, where
the copies that SMS averages share it. With ``mask_interval`` 0 the mask changes at pruning steps
only, as in the DPF of the SMS authors (github.com/ZIB-IOL/BIMP).

Source: Lin et al. 2020, Algorithm 1; Sparse Model Soups, section 3.3.
"""

from torch import nn

from pipeline.errors import UserError
from pipeline.sparsify._ranking import largest, magnitudes
from pipeline.sparsify._straight_through import StraightThrough
from pipeline.sparsify.base import GradualSparsifier, SparsifyConfig


class DPF(StraightThrough, GradualSparsifier):
    """Chooses the masks from the dense weights, at the present sparsity of the ramp."""

    def __init__(self, config: SparsifyConfig) -> None:
        super().__init__(config)
        if config.mask_interval < 0:
            raise UserError(
                f"sparsify.mask_interval is {config.mask_interval}, but must be at least 0"
            )
        self.refreshes = config.mask_interval > 0 and self.level > 0.0 and config.begin < self.last

    def update_masks(self, step: int) -> None:
        """Refresh the masks every ``mask_interval`` iterations, up to the last pruning step."""
        if self.refreshes and step % self.config.mask_interval == 0:
            self.masks = largest(magnitudes(self.dense), self.level)

    def on_epoch_end(self, model: nn.Module, epoch: int) -> None:  # noqa: ARG002
        """Take the pruning step of ``epoch``, if it has one."""
        if epoch in self.ramp:
            self.level = self.ramp[epoch]
            self.refreshes = self.config.mask_interval > 0 and epoch < self.last
            self.masks = largest(magnitudes(self.dense), self.level)
            self.apply_masks()


def build(config: SparsifyConfig) -> DPF:
    """Return DPF with ``config.pruning_steps``, and masks refreshed by ``config.mask_interval``."""
    return DPF(config)
