"""Stochastic weight averaging: one training's mean over its last epochs, as a hook of the loop."""

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.rounding import round_fraction
from pipeline.train.hook import Hook


class AverageEpochs(Hook):
    """Leaves the model at the mean of its weights after epochs e_0 + 1, ..., E.

        w_SWA = (w_{e_0 + 1} + ... + w_E) / (E - e_0),    e_0 = min(round(start E), E - 1)

    It is kept as a running mean in float64. A pruned weight is +0.0 after every epoch, so its mean
    is; BatchNorm's statistics fit none of the averaged networks and must be re-estimated.

    Args:
        start: the fraction of the training, in [0, 1), after which epochs count.
        epochs: E, how many there are.

    Raises:
        UserError: a start out of its range.

    Source: Izmailov et al. 2018, Algorithm 1, with cycles of an epoch; within a prune-retrain
        phase as in Sparse Model Soups, appendix C.3 (there from the first epoch on: start 0).
    """

    def __init__(self, start: float, epochs: int) -> None:
        if not 0 <= start < 1:
            raise UserError(f"swa.start is {start}: give a fraction from 0 up to, not with, 1.")
        self.after = min(round_fraction(start, epochs), epochs - 1)
        self.count = 0
        self.mean: dict[str, Tensor] = {}

    def on_epoch_end(self, model: nn.Module, epoch: int) -> None:
        """Take the weights after ``epoch`` into the mean."""
        if epoch <= self.after:
            return
        self.count += 1
        for name, weight in model.named_parameters():
            own = weight.detach().double()
            # The first is copied: in double precision on entry, `own` is the weight itself.
            mean = self.mean.setdefault(name, own.clone())
            mean += (own - mean) / self.count

    def on_train_end(self, model: nn.Module) -> None:
        """Load the mean into the model."""
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.copy_(self.mean[name])
