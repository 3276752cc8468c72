"""A network's logits on images, without a trace left in the network."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pipeline.train.normalise import normaliser


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put ``model`` in evaluation mode; afterwards each module is in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def logits(
    model: nn.Module, images: Tensor, mean: Tensor, std: Tensor, batch_size: int = 256
) -> Tensor:
    """Return the logits of ``model`` on ``images``, float32 [N, K], on the model's device.

    Arguments: images, uint8 [N, C, H, W], on any device; mean, std, float32 [C], of images / 255.
    """
    device = next(model.parameters()).device
    normalise = normaliser(mean, std, device)
    with evaluating(model), torch.inference_mode():
        parts = [model(normalise(batch.to(device))) for batch in torch.split(images, batch_size)]
    return torch.cat(parts)  # outside: a plain tensor, which autograd accepts as a constant
