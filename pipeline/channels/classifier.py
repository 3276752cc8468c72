"""The layer that gives each class its score."""

from torch import nn

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def classifier(model: nn.Module) -> str | None:
    """Return the name of the last linear layer or convolution that ``model`` defines."""
    layers = [name for name, layer in model.named_modules() if isinstance(layer, LAYERS)]
    return layers[-1] if layers else None
