"""Losses of batches as functions of the weights, with BatchNorm's statistics those of the batch."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.data.base import Split
from pipeline.train.modes import evaluating
from pipeline.train.normalise import normaliser
from pipeline.train.placement import to_device
from pipeline.train.predict import on_device

Loss = Callable[[Tensor, Tensor], Tensor]


class BatchLosses:
    """The task's loss on every batch of a split, each with its share of the examples.

    BatchNorm normalises by the statistics of the batch, as in training, so that derivatives include
    how the statistics follow the weights; the running statistics are left as they are. Dropout is
    off and images are not augmented. Weight decay is no part of the loss.

    Args:
        model: the network.
        split: the examples, in a random order by ``seed``.
        moments: mean and standard deviation of images / 255.
        loss: mean over the examples of a batch, of scores and labels.
        batch_size: at most; batches differ by one example at most.
        seed: of the order.
    """

    def __init__(
        self,
        model: nn.Module,
        split: Split,
        moments: tuple[Tensor, Tensor],
        loss: Loss,
        batch_size: int,
        seed: int,
    ) -> None:
        self.model, self.split, self.loss = model, split, loss
        self.device = next(model.parameters()).device
        self.normalise = normaliser(*moments, self.device)
        count = len(split)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        self.rows = order.tensor_split(math.ceil(count / batch_size))

    def __call__(self) -> Iterator[tuple[float, Tensor]]:
        """Yield share and loss of every batch, in the same order at each call."""
        with evaluating(self.model), _batch_statistics(self.model):
            batches = on_device(self.split.images, self.rows, self.device)
            for rows, images in zip(self.rows, batches, strict=True):
                labels = self.split.labels[rows]
                labels = labels if labels.is_floating_point() else labels.long()
                scores = self.model(self.normalise(images))
                loss = self.loss(scores, to_device(labels, self.device))
                yield len(rows) / len(self.split), loss


@contextmanager
def _batch_statistics(model: nn.Module) -> Iterator[None]:
    """Let BatchNorm normalise by the statistics of the batch and keep its running ones."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    tracked = [norm.track_running_stats for norm in norms]
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm, track in zip(norms, tracked, strict=True):
            norm.training, norm.track_running_stats = False, track
