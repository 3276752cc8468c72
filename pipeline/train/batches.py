"""Batches of the training split: shuffled, augmented and normalised."""

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
from pipeline.train.distributed import local_shard, world_size
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
    """Return the whole batches of ``order``, regrouped by the lengths of their sentences.

    A batch is computed as wide as its longest sentence, so this saves padding. Sentences are
    sorted within 50 batches at a time and the batches then shuffled: they differ from epoch to
    epoch and are not ordered by length. A step takes the mean over the tokens of its batch.
    Arguments: order, lengths, int64 [N]; the result is int64 [floor(N / size) * size].
    """
    whole = order[: len(order) // size * size]
    grouped = [part[lengths[part].argsort(stable=True)] for part in torch.split(whole, 50 * size)]
    batches = torch.cat(grouped).view(-1, size)
    return batches[torch.randperm(len(batches), generator=generator)].flatten()


class Batches:
    """Batches of one data set on one device; images stay uint8 until they are used.

    Order and augmentation have a random stream each, drawn on the CPU once an epoch, so batches do
    not depend on the device, which makes them without the host within an epoch. Compressed images
    stay with the host, which decodes the next batches during a step; their crops have a random
    stream too. Sentences of like length share a batch. A set smaller than a batch is one batch.

    Of processes that train together, each gets its shard of every batch.
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
        if self.size < world_size():
            raise UserError(
                f"a batch has {self.size} examples, too few for {world_size()} processes: raise "
                "pretrain.batch_size or lower SMS_GPUS_PER_STAGE"
            )
        self.shard = local_shard(self.size)
        sentences = self.labels.ndim == 2 and not len(data.mean)
        self.lengths = (self.labels >= 0).sum(1).cpu() if sentences else None
        self.smallest = augmentation.resized_crop
        self.flipped = augmentation.flip
        if self.smallest is not None:  # the crop is mirrored as it is decoded
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
        """Whether the device makes every batch without the host, and all have one shape."""
        return self.lengths is None and not isinstance(self.images, LazyImages)

    def shuffle(self) -> Tensor:
        """Draw an epoch's order and augmentation, copy them to the device, and return the order.

        The order is int64 [N], on the CPU; examples beyond the last whole batch are not used. The
        copies on the device keep their addresses, so that a captured step can read them.
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

        Label maps, one label a pixel, are cropped, flipped and rotated like their images. Nothing
        is read back to the host.

        Arguments: position, in the epoch, int64 [1] on the device; images, uint8, where the host
        has decoded them.
        """
        rows = self.rows.index_select(0, position)[0, self.shard]
        moves = self.moves.index_select(0, position)[0, self.shard]
        images, labels = self.images[rows] if images is None else images, self.labels[rows]
        if images.ndim == 4:
            images = apply(self.augmentation, images, moves)
        if labels.ndim == 3:
            labels = apply(self.augmentation, labels[:, None], moves, IGNORE)[:, 0]
        return self.normalise(images), labels if labels.is_floating_point() else labels.long()

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffle, and yield one epoch's batches (see `batch`)."""
        order = self.shuffle()
        decoded = self._decoded(order) if isinstance(self.images, LazyImages) else repeat(None)
        for position, images in zip(self.positions, decoded, strict=False):
            yield self.batch(position, images)

    def _decoded(self, order: Tensor) -> Iterator[Tensor]:
        """Yield the decoded images of each batch of ``order`` on the device, cropped if asked."""
        assert isinstance(self.images, LazyImages)
        cuts: Iterable[Tensor | None] = repeat(None)
        if self.smallest is not None:
            sizes = self.images.files.sizes[order]
            cut = random_resized_crop.draw(sizes, self.smallest, self.crops, flip=self.flipped)
            cuts = (part[self.shard] for part in torch.split(cut, self.size))
        whole = order[: len(self) * self.size]
        rows = (part[self.shard] for part in torch.split(whole, self.size))
        yield from self.images.decoded(zip(rows, cuts, strict=False), self.labels.device)
