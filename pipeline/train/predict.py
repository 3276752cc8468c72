"""A network's outputs on examples, without a trace left in the network."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pipeline.data.base import Split
from pipeline.data.formats.lazy_images import Images, LazyImages, Rows
from pipeline.train.criterion import Criterion
from pipeline.train.normalise import normaliser
from pipeline.train.placement import sent

GPU_PIXELS = 2**20  # of a batch on a GPU; at 160 channels, the widest here, 0.7 GB a layer


def eval_batch_size(images: Images) -> int:
    """Return how many of ``images`` are passed at once: 256, and fewer of those that are large.

    A batch has 2^22 pixels at most, so that what a network makes of large images fits in memory;
    of sentences it has 64, since each of their tokens has the scores of a whole vocabulary.
    """
    if images.ndim != 4:
        return 64
    return max(2, min(256, 2**22 // math.prod(images.shape[2:])))  # BatchNorm needs two


def batch_on(device: torch.device, images: Images) -> int:
    """Return how many of ``images`` are predicted at once on ``device``.

    On a CPU that is `batch_of`. A GPU gets several of these batches in one, so that it computes for
    longer than the host takes to launch a layer: four of sentences, and of images as many as
    `GPU_PIXELS` hold (1,024 of 32 x 32 pixels), at least one. Predictions of one example do not
    depend on the others but for rounding; what does is BatchNorm's re-estimation
    (pipeline/train/batchnorm.py), whose batches are `batch_of` everywhere.
    """
    size = eval_batch_size(images)
    if device.type == "cpu":
        return size
    if images.ndim != 4:
        return 4 * size
    return size * max(1, GPU_PIXELS // (size * math.prod(images.shape[2:])))


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
    """Yield the outputs of ``model``, as it is, batch by batch; arguments as of `logits`.

    On a GPU the host is batches ahead, unless whoever asks reads a number of each.
    """
    device = next(model.parameters()).device
    normalise = normaliser(mean, std, device)
    size = batch_size or batch_on(device, images)
    parts = (slice(start, start + size) for start in range(0, len(images), size))
    for batch in on_device(images, parts, device):
        yield model(normalise(batch))


def on_device(images: Images, parts: Iterable[Rows], device: torch.device) -> Iterator[Tensor]:
    """Yield ``images`` part by part on ``device``; compressed ones are decoded ahead."""
    if isinstance(images, LazyImages):
        yield from images.decoded(((rows, None) for rows in parts), device)
    else:
        yield from (sent(images[rows], device) for rows in parts)


def count_correct(
    model: nn.Module, criterion: Criterion, split: Split, mean: Tensor, std: Tensor
) -> Tensor:
    """Return at how many positions ``model`` is right, and how many count, float64 [2].

    Both stay on the model's device, and no number is read on the way. The first is NaN for a
    network that puts out NaN or infinity. Arguments: criterion says what is right; split, whose
    labels are negative where a position does not count; the others as of `logits`.
    """
    device = next(model.parameters()).device
    labels = sent(split.labels, device)
    right, done = torch.zeros((), dtype=torch.float64, device=device), 0
    with evaluating(model), torch.inference_mode():
        for scores in outputs(model, split.images, mean, std):
            hits = criterion.correct(scores, labels[done : done + len(scores)])
            done += len(scores)
            right += torch.where(scores.isfinite().all(), hits.double(), math.nan)
    return torch.stack([right, criterion.counted(labels).double()])
