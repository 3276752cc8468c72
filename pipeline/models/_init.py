"""Initialisation of this folder's networks."""

from torch import nn


def he_initialise(model: nn.Module) -> None:
    """Draw every convolution from N(0, 2 / fan_out), from torch's generator; biases are 0.

    BatchNorm and Linear layers keep torch's own initialisation.
    Source: K. He et al., "Delving Deep into Rectifiers", ICCV 2015, Eq. 14.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
