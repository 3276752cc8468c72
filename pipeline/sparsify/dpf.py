"""DPF: GMP's ramp with feedback, pruned weights keep learning and may return (Lin et al. 2020).

    w <- w - eta * v,  v the optimiser's step with the gradient grad L(M * w) on the dense w
    M  = the largest |w|, so many that s_k is pruned; anew every ``mask_interval`` iterations

and in the end the network is M * w. The sparsity s_k climbs with GMP's pruning steps, which is
what makes the interval between two of them a phase. The mask is refreshed within it too, but not
after the last step: the copies that SMS averages there share it. With ``mask_interval`` 0 the mask
changes at pruning steps only, as in the authors' own DPF (github.com/ZIB-IOL/BIMP).

Source: Lin et al. 2020, Algorithm 1; Sparse Model Soups, section 3.3.
"""

from torch import nn

from pipeline.errors import UserError
from pipeline.sparsify._ranking import largest, magnitudes
from pipeline.sparsify._straight_through import StraightThrough
from pipeline.sparsify.base import Gradual, SparsifyConfig


class DPF(StraightThrough, Gradual):
    """Refresh the mask from the dense weights, at the sparsity that the ramp has reached."""

    def __init__(self, goal: SparsifyConfig) -> None:
        super().__init__(goal)
        if goal.mask_interval < 0:
            raise UserError(
                f"sparsify.mask_interval is {goal.mask_interval}, but must be 0 or more iterations"
            )
        self.refreshes = goal.mask_interval > 0 and self.level > 0.0 and goal.begin < self.last

    def update(self, step: int) -> None:
        """Refresh the masks every so many iterations."""
        if self.refreshes and step % self.goal.mask_interval == 0:
            self.masks = largest(magnitudes(self.dense), self.level)

    def on_epoch_end(self, model: nn.Module, epoch: int) -> None:  # noqa: ARG002
        """Climb the ramp where ``epoch`` has a pruning step."""
        if epoch in self.ramp:
            self.level = self.ramp[epoch]
            self.refreshes = self.goal.mask_interval > 0 and epoch < self.last
            self.masks = largest(magnitudes(self.dense), self.level)
            self.apply()


def build(goal: SparsifyConfig) -> DPF:
    """Return DPF with ``goal.pruning_steps`` and a new mask every ``goal.mask_interval`` steps."""
    return DPF(goal)
