"""STR: soft thresholding with one learned threshold a layer (Kusupati et al. 2020).

    forward pass at sign(w) * relu(|w| - sigmoid(s_layer))

s is learned with the weights, by the loss and by weight decay, which pulls s from below to 0 and so
raises the threshold. The sparsity is a result.

Source: Kusupati et al. 2020, equations 3 to 5.
"""

import torch
from torch import Tensor, nn

from pipeline.sparsify._reparametrised import Reparametrised
from pipeline.sparsify.base import SparsifyConfig


class SoftThreshold(nn.Module):
    """w -> sign(w) * relu(|w| - sigmoid(s)) with one s a layer."""

    def __init__(self, weight: Tensor, initial: float) -> None:
        super().__init__()
        self.s = nn.Parameter(weight.new_tensor(initial))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight shrunk towards 0 by the threshold."""
        return torch.sign(weight) * torch.relu(weight.abs() - torch.sigmoid(self.s))


class STR(Reparametrised):
    """Soft thresholds as parameters, trained by the optimiser."""


def build(config: SparsifyConfig) -> STR:
    """Return STR with the initial value s = ``config.str_init``."""
    return STR(config, lambda weight: SoftThreshold(weight, config.str_init))
