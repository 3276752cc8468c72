"""BatchNorm re-estimation: running statistics for averaged, pruned or permuted weights."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from pipeline.data.formats.lazy_images import Images, LazyImages
from pipeline.train import random_resized_crop
from pipeline.train.augment import apply, draw
from pipeline.train.normalise import normaliser
from pipeline.train.predict import eval_batch_size, on_device
from pipeline.train.running_statistics import average_over
from pipeline.train.settings import Augmentation

NONE = Augmentation()


def reestimate(
    model: nn.Module,
    images: Images,
    mean: Tensor,
    std: Tensor,
    batch_size: int | None = None,
    augmentation: Augmentation = NONE,
) -> None:
    """Replace all running statistics by averages over ``images``, in one pass (`average_over`).

    The variance is the mean variance within batches, as in training and in
    `torch.optim.swa_utils.update_bn`, not that of the whole set. Unlike in update_bn, each
    *example* has the same weight and batch sizes differ by one at most. Dropout is off, and the
    order is a fixed random one: data may be stored class by class.

    Images are augmented as in training, each once, by fixed draws: the black borders of crops
    change the statistics to which the weights are adapted. Without augmentation a ResNet-18 trained
    for 200 epochs on CIFAR-10 loses 2 points of test accuracy (docs/gpu.md).

    Arguments: images, uint8 [N, C, H, W]; mean, std, float32 [C], of images / 255.
    """
    device = next(model.parameters()).device
    normalise, parts = normaliser(mean, std, device), _parts(images, batch_size)
    generator = torch.Generator().manual_seed(0)
    batches = augmented(images, parts, augmentation, generator, device)
    average_over(model, batches, len, lambda batch: model(normalise(batch)))


def _parts(images: Images, batch_size: int | None) -> Sequence[Tensor]:
    """Return the rows of each batch: all images in a fixed random order, in equal parts.

    The batch size is a part of the definition: deeper layers see inputs that were normalised by m_b
    and v_b, so their statistics depend on n_b by O(1 / n_b). By default it is `eval_batch_size`,
    256 for small images, on every device, though a GPU could take more: the result must not depend
    on the device.
    """
    count = len(images)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).to(images.device)
    parts = math.ceil(count / (batch_size or eval_batch_size(images)))
    return order.tensor_split(max(1, min(parts, count // 2)))  # a batch of one has no variance


def augmented(
    images: Images,
    parts: Sequence[Tensor],
    augmentation: Augmentation,
    generator: torch.Generator,
    device: torch.device,
) -> Iterator[Tensor]:
    """Yield the rows of each of ``parts``, uint8 [n, C, H, W], augmented, on ``device``.

    ``generator`` makes all draws before the first batch. Sentences are not changed.
    """
    sizes = [len(rows) for rows in parts]
    smallest = augmentation.resized_crop
    if smallest is not None and isinstance(images, LazyImages):
        of_files = images.files.sizes[torch.cat(list(parts))]
        crops = random_resized_crop.draw(of_files, smallest, generator, flip=augmentation.flip)
        batches = images.decoded(zip(parts, torch.split(crops, sizes), strict=True), device)
        augmentation = replace(augmentation, resized_crop=None, flip=False)  # done in the crop
    else:
        batches = on_device(images, parts, device)
    if augmentation == NONE or images.ndim != 4:
        yield from batches
        return
    moves = draw(augmentation, sum(sizes), generator).to(device)
    for batch, of_batch in zip(batches, torch.split(moves, sizes), strict=True):
        yield apply(augmentation, batch, of_batch)
