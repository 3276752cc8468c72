"""The layer that gives each class its score."""

from torch import nn


def classifier(model: nn.Module) -> str:
    """Return the name of the last linear layer or convolution that ``model`` defines."""
    layers: list[str] = [
        name for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    return layers[-1]
