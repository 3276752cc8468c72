"""Losses of batches as functions of the weights, with BatchNorm's statistics those of the batch."""

from collections.abc import Callable, Iterator

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
        batch_size: of all batches; a smaller rest at the end is left out.
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
        count = len(split.labels)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        size = min(batch_size, count)
        self.rows = list(order[: count // size * size].split(size))

    def __call__(self) -> Iterator[tuple[float, Tensor]]:
        """Yield share and loss of every batch, in the same order at each call."""
        with evaluating(self.model), _batch_statistics(self.model):
            batches = on_device(self.split.images, self.rows, self.device)
            for rows, images in zip(self.rows, batches, strict=True):
                labels = to_device(self.split.labels[rows], self.device)
                yield 1 / len(self.rows), self.loss(self.model(self.normalise(images)), labels)
