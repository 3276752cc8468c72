"""BatchNorm statistics of a network whose weights did not come out of training, as a soup's."""

import math

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
    The variance is that within batches, the one a network in training is normalised by (as
    `torch.optim.swa_utils.update_bn`), not that of the whole set, which the spread of the m_b
    would enlarge. Unlike there, each *example* weighs the same and no batch is short: they differ
    by one example at most. Images are not augmented and dropout is off. Their order is shuffled,
    always alike, so that sets stored class by class make no one-sided batches.

    The batches are a part of the definition: deeper layers see what earlier ones normalised by m_b
    and v_b, so their statistics depend on n_b by O(1 / n_b). By default they are
    `pipeline.train.predict.batch_of` examples, 256 of small images, on every device, though a GPU
    could take more at once: where a network is computed must not change its result.

    Does nothing to a network without running statistics. Modes and momenta stay as they were.
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
    normalise = normaliser(mean, std, device)
    count = len(images)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).to(images.device)
    parts = math.ceil(count / (batch_size or eval_batch_size(images)))
    parts = max(1, min(parts, count // 2))  # a batch of one has no variance
    seen = 0
    with evaluating(model), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.training = True
        for batch in on_device(images, order.tensor_split(parts), device):
            seen += len(batch)
            for norm in norms:
                norm.momentum = len(batch) / seen  # makes the running value the weighted average
            model(normalise(batch))
        for norm, momentum in norms.items():
            norm.training = False
            norm.momentum = momentum
