"""BatchNorm re-estimation: running statistics for averaged, pruned or permuted weights."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.data.formats.lazy_images import Images
from pipeline.train.normalise import normaliser
from pipeline.train.predict import eval_batch_size, on_device
from pipeline.train.running_statistics import average_over


def reestimate(
    model: nn.Module, images: Images, mean: Tensor, std: Tensor, batch_size: int | None = None
) -> None:
    """Replace all running statistics by averages over ``images``, in one pass (`average_over`).

    The variance is the mean variance within batches, as in training and in
    `torch.optim.swa_utils.update_bn`, not that of the whole set. Unlike in update_bn, each
    *example* has the same weight and batch sizes differ by one at most. Images are not augmented,
    dropout is off, and the order is a fixed random one: data may be stored class by class.

    Arguments: images, uint8 [N, C, H, W]; mean, std, float32 [C], of images / 255.
    """
    device = next(model.parameters()).device
    normalise, parts = normaliser(mean, std, device), _parts(images, batch_size)
    batches = on_device(images, parts, device)
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
