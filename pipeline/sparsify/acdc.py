"""AC/DC: training alternates between the sparse and the dense network (Peste et al. 2021).

    compress      M = the largest |w| of one global ranking at sparsity s,  w <- M * w
    decompress    M = 1,  v <- 0 of every parameter

and between the two an optimiser step has the gradient M * grad L(w). The masks are chosen anew
whenever a compressed phase begins. Pruned weights start the next dense phase from 0; all momentum
is reset then, because that of the sparse network is stale. After a dense warm-up the phases
alternate, and the last one is compressed (`pipeline.schedules.sparsity.alternation`).

Source: Peste et al. 2021, Algorithm 1 and section 4; the authors' github.com/IST-DASLab/ACDC.
"""

import torch
from torch import nn

from pipeline.schedules.sparsity import alternation
from pipeline.sparsify._masked import Masked
from pipeline.sparsify.base import SparsifyConfig


class ACDC(Masked):
    """Compresses and decompresses the network at the ends of epochs.

    ``steps``: those in this part of the training, by epoch, True to compress. One at the end of a
    part is taken outside it.
    """

    def __init__(self, config: SparsifyConfig) -> None:
        super().__init__(config)
        all_steps = alternation(
            config.epochs, config.acdc_warmup, config.acdc_phase, config.acdc_last
        )
        end = config.epochs if config.end is None else config.end
        self.steps = {
            epoch: compresses
            for epoch, compresses in all_steps.items()
            if config.begin < epoch < end
        }

    @torch.no_grad()
    def on_epoch_end(self, model: nn.Module, epoch: int) -> None:  # noqa: ARG002
        """Compress or decompress the network after ``epoch``, where a phase ends there."""
        if epoch not in self.steps:
            return
        if self.steps[epoch]:
            self.prune_to_sparsity()
            self.apply_masks()
        else:
            self.masks = {name: torch.ones_like(mask) for name, mask in self.masks.items()}
            for momentum in self.momenta(self.parameters):
                momentum.zero_()


def build(config: SparsifyConfig) -> ACDC:
    """Return AC/DC with the phases of ``config.acdc_warmup``, ``acdc_phase`` and ``acdc_last``."""
    return ACDC(config)
