"""Outputs of a network in evaluation mode, batch by batch; the network is left unchanged."""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from pipeline.data.base import Split
from pipeline.data.formats.lazy_images import Images, LazyImages, Rows
from pipeline.train.criterion import Criterion
from pipeline.train.modes import evaluating
from pipeline.train.normalise import normaliser
from pipeline.train.placement import to_device

GPU_PIXELS = 2**20  # in a batch on a GPU: 0.7 GB a layer at 160 channels, the widest here


def eval_batch_size(images: Images) -> int:
    """Return the batch size of evaluation: 256, and less for large images.

    A batch has 2^22 pixels at most, so that the activations of large images fit in memory. A batch
    of sentences has 64, since every token has a score for each entry of the vocabulary.
    """
    if images.ndim != 4:
        return 64
    return max(2, min(256, 2**22 // math.prod(images.shape[2:])))  # BatchNorm needs two


def batch_on(device: torch.device, images: Images) -> int:
    """Return the batch size of predictions on ``device``.

    On a CPU `eval_batch_size`. On a GPU several such batches at once, so that computing a layer
    takes longer than launching it: four of sentences, and as many of images as `GPU_PIXELS` hold
    (1,024 images of 32 x 32 pixels), at least one. The prediction of an example depends on the
    others only by rounding; BatchNorm's re-estimation (pipeline/train/batchnorm.py) does depend on
    the batch, so it uses `eval_batch_size` on every device.
    """
    size = eval_batch_size(images)
    if device.type == "cpu":
        return size
    if images.ndim != 4:
        return 4 * size
    return size * max(1, GPU_PIXELS // (size * math.prod(images.shape[2:])))


def logits(
    model: nn.Module, images: Images, mean: Tensor, std: Tensor, batch_size: int | None = None
) -> Tensor:
    """Return the logits of ``model`` on ``images``, float32 [N, K], on the model's device.

    Arguments: images, uint8 [N, C, H, W], on any device; mean, std, float32 [C], of images / 255.
    """
    with evaluating(model), torch.inference_mode():
        parts = list(outputs(model, images, mean, std, batch_size))
    return torch.cat(parts)  # outside inference mode, so that autograd accepts the tensor


def outputs(
    model: nn.Module, images: Images, mean: Tensor, std: Tensor, batch_size: int | None = None
) -> Iterator[Tensor]:
    """Yield the outputs of ``model`` in its current mode, batch by batch; arguments as of `logits`.

    On a GPU the host runs batches ahead, unless the caller reads a value of each.
    """
    device = next(model.parameters()).device
    normalise = normaliser(mean, std, device)
    size = batch_size or batch_on(device, images)
    parts = (slice(start, start + size) for start in range(0, len(images), size))
    for batch in on_device(images, parts, device):
        yield model(normalise(batch))


def on_device(images: Images, parts: Iterable[Rows], device: torch.device) -> Iterator[Tensor]:
    """Yield ``images`` part by part on ``device``; compressed images are decoded ahead."""
    if isinstance(images, LazyImages):
        yield from images.decoded(((rows, None) for rows in parts), device)
    else:
        yield from (to_device(images[rows], device) for rows in parts)


def count_correct(
    model: nn.Module, criterion: Criterion, split: Split, mean: Tensor, std: Tensor
) -> Tensor:
    """Return the number of correct predictions and of counted positions, float64 [2].

    Both stay on the model's device; nothing is read back in between. The first is NaN for outputs
    with NaN or infinity. Arguments: criterion decides what is correct; split, whose labels are
    negative at positions that are not counted; the others as of `logits`.
    """
    device = next(model.parameters()).device
    labels = to_device(split.labels, device)
    correct, done = torch.zeros((), dtype=torch.float64, device=device), 0
    with evaluating(model), torch.inference_mode():
        for scores in outputs(model, split.images, mean, std):
            in_batch = criterion.correct(scores, labels[done : done + len(scores)])
            done += len(scores)
            correct += torch.where(scores.isfinite().all(), in_batch.double(), math.nan)
    return torch.stack([correct, criterion.counted(labels).double()])
