"""BatchNorm re-estimation: running statistics for averaged, pruned or permuted weights."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.data.formats.lazy_images import Images
from pipeline.train.normalise import normaliser
from pipeline.train.predict import eval_batch_size, evaluating, on_device


def reestimate(
    model: nn.Module, images: Images, mean: Tensor, std: Tensor, batch_size: int | None = None
) -> None:
    """Replace all running statistics by averages over ``images``, in one pass.

    With batches b of n_b examples, whose inputs to the layer have mean m_b and unbiased variance
    v_b per channel:  running mean = sum(n_b m_b) / N,  running variance = sum(n_b v_b) / N.
    The variance is the mean variance within batches, as in training and in
    `torch.optim.swa_utils.update_bn`, not that of the whole set. Unlike in update_bn, each
    *example* has the same weight and batch sizes differ by one at most. Images are not augmented,
    dropout is off, and the order is a fixed random one: data may be stored class by class.

    Modes and momenta are restored; without running statistics nothing is done.
    Arguments: images, uint8 [N, C, H, W]; mean, std, float32 [C], of images / 255.
    Source: paper, Section 3 and Appendix A.2; Izmailov et al. 2018 (SWA).
    """
    norms = {
        module: module.momentum
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }
    if not norms:
        return
    device = next(model.parameters()).device
    normalise, parts, seen = normaliser(mean, std, device), _parts(images, batch_size), 0
    with evaluating(model), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.training = True
        for batch in on_device(images, parts, device):
            seen += len(batch)
            for norm in norms:
                norm.momentum = len(batch) / seen  # makes the running value the weighted average
            model(normalise(batch))
        for norm, momentum in norms.items():
            norm.training = False
            norm.momentum = momentum


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
