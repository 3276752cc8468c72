"""Coordinates of a network's kept weights: one vector of all that masks do not prune."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class KeptWeights:
    """The parameters of a network as a vector, without the entries that masks prune.

    Args:
        model: its trained parameters are the coordinates, biases and BatchNorm's included.
        masks: bool, True where a weight is kept, by parameter name; parameters without one are
            kept whole.

    Attributes:
        parameters: all of them, in the order of the network.
        sizes: the number of coordinates of each parameter.
        count: the number of coordinates, n.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.parameters = [parameter for _, parameter in named]
        self.kept = [
            masks[name].to(p.device) if name in masks else torch.ones_like(p, dtype=torch.bool)
            for name, p in named
        ]
        self.sizes = [int(mask.count_nonzero()) for mask in self.kept]
        self.count = sum(self.sizes)

    def flatten(self, tensors: Iterable[Tensor]) -> Tensor:
        """Return the kept entries of one tensor per parameter, float64 [n] on the CPU."""
        pairs = zip(tensors, self.kept, strict=True)
        return torch.cat([tensor.detach()[mask] for tensor, mask in pairs]).double().cpu()

    def unflatten(self, vector: Tensor) -> list[Tensor]:
        """Return one tensor per parameter with the entries of ``vector`` [n], zero where pruned."""
        tensors = []
        parts = torch.split(vector, self.sizes)
        for part, mask, parameter in zip(parts, self.kept, self.parameters, strict=True):
            tensor = torch.zeros_like(parameter)
            tensor[mask] = part.to(tensor)
            tensors.append(tensor.detach())
        return tensors
