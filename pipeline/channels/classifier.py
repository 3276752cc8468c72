"""Classifier: the last layer of a network, whose outputs are the class scores."""

from torch import nn

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def classifier(model: nn.Module) -> str | None:
    """Return the name of the last linear layer or convolution that ``model`` defines, if any."""
    layers = [name for name, layer in model.named_modules() if isinstance(layer, LAYERS)]
    return layers[-1] if layers else None
