"""Stochastic weight averaging (SWA): the mean of the weights over the last epochs, as a hook."""

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.rounding import round_fraction
from pipeline.train.hook import Hook


class AverageEpochs(Hook):
    """Replaces the final weights by their mean after epochs e_0 + 1, ..., E.

        w_SWA = (w_{e_0 + 1} + ... + w_E) / (E - e_0),    e_0 = min(round(start E), E - 1)

    A running mean in float64. A pruned weight is +0.0 after every epoch, hence in the mean.
    BatchNorm's statistics do not belong to the mean and must be re-estimated.

    Args:
        start: the fraction of the training, in [0, 1), after which epochs count.
        epochs: E, of the training.

    Raises:
        UserError: a start out of its range.

    Source: Izmailov et al. 2018, Algorithm 1, with cycles of an epoch; within a prune-retrain
        phase as in Sparse Model Soups, appendix C.3 (there from the first epoch on: start 0).
    """

    def __init__(self, start: float, epochs: int) -> None:
        if not 0 <= start < 1:
            raise UserError(f"swa.start is {start}, but must be in [0, 1).")
        self.after = min(round_fraction(start, epochs), epochs - 1)
        self.count = 0
        self.mean: dict[str, Tensor] = {}

    def on_epoch_end(self, model: nn.Module, epoch: int) -> None:
        """Add the weights after ``epoch`` to the mean."""
        if epoch <= self.after:
            return
        self.count += 1
        for name, weight in model.named_parameters():
            value = weight.detach().double()
            # Copied at first: of a weight that is float64 already, `value` is the weight itself.
            mean = self.mean.setdefault(name, value.clone())
            mean += (value - mean) / self.count

    def on_train_end(self, model: nn.Module) -> None:
        """Load the mean into the model."""
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.copy_(self.mean[name])
