"""Reparametrised weights: a module with parameters computes w in every forward pass."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pipeline.sparsify.base import Sparsifier, SparsifyConfig


class Reparametrised(Sparsifier):
    """Registers a parametrisation of every prunable weight, and removes it at the end."""

    def __init__(self, config: SparsifyConfig, make: Callable[[Tensor], nn.Module]) -> None:
        super().__init__(config)
        self.make = make

    def on_train_start(self, model: nn.Module) -> None:
        """Register the parametrisation that ``make`` returns for each weight."""
        super().on_train_start(model)
        self.layers: dict[str, tuple[nn.Module, str]] = {}
        self.functions: dict[str, nn.Module] = {}
        for name, weight in self.weights.items():
            prefix, _, attribute = name.rpartition(".")
            self.layers[name] = model.get_submodule(prefix), attribute
            self.functions[name] = self.make(weight)
            parametrize.register_parametrization(*self.layers[name], self.functions[name])

    @torch.no_grad()
    def on_train_end(self, model: nn.Module) -> None:  # noqa: ARG002
        """Store the computed weights, remove every parametrisation; masks are True where w != 0."""
        for name, (layer, attribute) in self.layers.items():
            weight = layer.get_parameter(f"parametrizations.{attribute}.original")
            final = self.functions[name](weight)
            parametrize.remove_parametrizations(layer, attribute, leave_parametrized=False)
            layer.get_parameter(attribute).copy_(final)
            self.weights[name], self.masks[name] = layer.get_parameter(attribute), final != 0
        self.zero_pruned()
