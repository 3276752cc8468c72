"""The training split, handed out in shuffled, augmented, normalised batches."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.data.base import IGNORE
from pipeline.data.formats.lazy_images import LazyImages
from pipeline.errors import UserError
from pipeline.seeds import derive
from pipeline.train import random_resized_crop
from pipeline.train.augment import apply, draw
from pipeline.train.distributed import local_shard, world
from pipeline.train.normalise import normaliser
from pipeline.train.settings import Augmentation

if TYPE_CHECKING:
    from pipeline.data.base import Dataset


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Return floor(examples / batch_size): a short last batch is dropped; at least one step."""
    return max(1, examples // batch_size)


def bucket_by_length(
    order: Tensor, lengths: Tensor, size: int, generator: torch.Generator
) -> Tensor:
    """Return the whole batches of ``order`` regrouped into batches of sentences of like length.

    As a batch is computed as wide as its longest sentence, that saves the padding. Sentences are
    sorted within 50 batches at a time, and the batches are then shuffled, so that batches differ
    from epoch to epoch and come in no order of length. Each step still takes the mean over its own
    tokens. Arguments: order, lengths, int64 [N]; the result is int64 [floor(N / size) * size].
    """
    whole = order[: len(order) // size * size]
    grouped = [part[lengths[part].argsort(stable=True)] for part in torch.split(whole, 50 * size)]
    batches = torch.cat(grouped).view(-1, size)
    return batches[torch.randperm(len(batches), generator=generator)].flatten()


class Batches:
    """Batches of one data set on one device, in which the images stay uint8 until they are used.

    Order and augmentation have a random stream each, drawn on the CPU once an epoch: any device
    sees the same batches, and makes them by itself within an epoch. Compressed images
    stay with the host, which decodes the next batches while one is learned from; their crops have a
    random stream too. Sentences of like length share a batch. A set smaller than a batch is one.

    Of processes that train together each is handed its share of every batch.
    """

    def __init__(
        self,
        data: "Dataset",
        batch_size: int,
        augmentation: Augmentation,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        self.images = data.train.images.to(device)
        self.labels = data.train.labels.to(device)
        self.size = min(batch_size, len(self.labels))
        if self.size < world():
            raise UserError(
                f"a batch has {self.size} examples, too few for {world()} processes: raise "
                "pretrain.batch_size or lower SMS_GPUS_PER_STAGE"
            )
        self.own = local_shard(self.size)
        sentences = self.labels.ndim == 2 and not len(data.mean)
        self.lengths = (self.labels >= 0).sum(1).cpu() if sentences else None
        self.smallest = augmentation.resized_crop
        self.flipped = augmentation.flip
        if self.smallest is not None:  # mirrors what it cuts out
            augmentation = replace(augmentation, resized_crop=None, flip=False)
            if not isinstance(self.images, LazyImages):
                raise UserError(
                    f"augmentation.resized_crop is {self.smallest}, but the images of {data.name} "
                    "are stored as squares: leave it null, and set crop_padding"
                )
        self.augmentation = augmentation
        self.normalise = normaliser(data.mean, data.std, device)
        self.order, self.draws, self.crops = (
            torch.Generator().manual_seed(derive(seed, name))
            for name in ("order", "augmentation", "crops")
        )
        steps = len(self)
        self.positions = torch.split(torch.arange(steps, device=device), 1)
        self.rows = torch.zeros((steps, self.size), dtype=torch.int64, device=device)
        self.moves = torch.zeros((steps, self.size, 4), dtype=torch.float64, device=device)

    def __len__(self) -> int:
        return steps_per_epoch(len(self.labels), self.size)

    @property
    def resident(self) -> bool:
        """Whether the device alone can make every batch, and all in one shape."""
        return self.lengths is None and not isinstance(self.images, LazyImages)

    def shuffle(self) -> Tensor:
        """Draw an epoch's order and augmentation, bring them to the device, and return the order.

        It is int64 [N], on the CPU; what makes no whole batch is not used. The device's copies stay
        where they are in memory.
        """
        count, used = len(self.labels), len(self) * self.size
        order = torch.randperm(count, generator=self.order)
        if self.lengths is not None:
            order = bucket_by_length(order, self.lengths, self.size, self.order)
        self.rows.copy_(order[:used].view_as(self.rows))
        draws = draw(self.augmentation, count, self.draws)
        self.moves.copy_(draws[:used].view_as(self.moves))
        return order

    def batch(self, position: Tensor, images: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return one batch of the epoch: float32 [B, C, H, W] channels last, and labels [B, ...].

        A map of labels, one a pixel, is moved as its image is. The host takes no part in it.

        Arguments: position, in the epoch, int64 [1] on the device; images, where the host has
        decoded them.
        """
        rows = self.rows.index_select(0, position)[0, self.own]
        moves = self.moves.index_select(0, position)[0, self.own]
        found, labels = self.images[rows] if images is None else images, self.labels[rows]
        if found.ndim == 4:
            found = apply(self.augmentation, found, moves)
        if labels.ndim == 3:
            labels = apply(self.augmentation, labels[:, None], moves, IGNORE)[:, 0]
        return self.normalise(found), labels if labels.is_floating_point() else labels.long()

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffle, and yield one epoch's batches as of `batch`."""
        order = self.shuffle()
        decoded = self._decoded(order) if isinstance(self.images, LazyImages) else repeat(None)
        for position, images in zip(self.positions, decoded, strict=False):
            yield self.batch(position, images)

    def _decoded(self, order: Tensor) -> Iterator[Tensor]:
        """Yield the images of each batch of ``order`` on the device, cut out where they are cut."""
        assert isinstance(self.images, LazyImages)
        cuts: Iterable[Tensor | None] = repeat(None)
        if self.smallest is not None:
            sizes = self.images.files.sizes[order]
            cut = random_resized_crop.draw(sizes, self.smallest, self.crops, flip=self.flipped)
            cuts = (part[self.own] for part in torch.split(cut, self.size))
        whole = order[: len(self) * self.size]
        rows = (part[self.own] for part in torch.split(whole, self.size))
        yield from self.images.decoded(zip(rows, cuts, strict=False), self.labels.device)
