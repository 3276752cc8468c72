"""A network's outputs on examples, without a trace left in the network."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pipeline.data.base import Split
from pipeline.data.formats.compressed import Compressed, Images, Rows
from pipeline.train.criterion import Criterion
from pipeline.train.normalise import normaliser


def batch_of(images: Images) -> int:
    """Return how many of ``images`` are passed at once: 256, and fewer of those that are large.

    A batch has 2^22 pixels at most, so that what a network makes of large images fits in memory;
    of sentences it has 64, since each of their tokens has the scores of a whole vocabulary.
    """
    if images.ndim != 4:
        return 64
    return max(2, min(256, 2**22 // math.prod(images.shape[2:])))  # BatchNorm needs two


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
    model: nn.Module, images: Images, mean: Tensor, std: Tensor, batch_size: int | None = None
) -> Tensor:
    """Return the logits of ``model`` on ``images``, float32 [N, K], on the model's device.

    Arguments: images, uint8 [N, C, H, W], on any device; mean, std, float32 [C], of images / 255.
    """
    with evaluating(model), torch.inference_mode():
        parts = list(outputs(model, images, mean, std, batch_size))
    return torch.cat(parts)  # outside: a plain tensor, which autograd accepts as a constant


def outputs(
    model: nn.Module, images: Images, mean: Tensor, std: Tensor, batch_size: int | None = None
) -> Iterator[Tensor]:
    """Yield the outputs of ``model``, as it is, batch by batch; arguments as of `logits`."""
    device = next(model.parameters()).device
    normalise = normaliser(mean, std, device)
    size = batch_size or batch_of(images)
    parts = (slice(start, start + size) for start in range(0, len(images), size))
    for batch in on_device(images, parts, device):
        yield model(normalise(batch))


def on_device(images: Images, parts: Iterable[Rows], device: torch.device) -> Iterator[Tensor]:
    """Yield ``images`` part by part on ``device``; compressed ones are decoded ahead."""
    if isinstance(images, Compressed):
        yield from images.decoded(((rows, None) for rows in parts), device)
    else:
        yield from (images[rows].to(device) for rows in parts)


def count_right(
    model: nn.Module, criterion: Criterion, split: Split, mean: Tensor, std: Tensor
) -> Tensor:
    """Return at how many positions ``model`` is right, and how many count, float64 [2].

    The first is NaN for a network that puts out NaN or infinity. Arguments: criterion says what is
    right; split, whose labels are negative where a position does not count; the others as of
    `logits`.
    """
    right, count, done = 0.0, int(criterion.counted(split.labels)), 0
    with evaluating(model), torch.inference_mode():
        for scores in outputs(model, split.images, mean, std):
            own = split.labels[done : done + len(scores)].to(scores.device)
            done += len(scores)
            if not scores.isfinite().all():
                right = math.nan
                break
            right += int(criterion.right(scores, own))
    device = next(model.parameters()).device
    return torch.tensor([right, count], dtype=torch.float64, device=device)
