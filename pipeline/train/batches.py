"""The training split, handed out in shuffled, augmented, normalised batches."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.data.base import IGNORE
from pipeline.data.formats.compressed import Compressed
from pipeline.errors import UserError
from pipeline.seeds import derive
from pipeline.train import crops
from pipeline.train.augment import Augmentation
from pipeline.train.distributed import own, world
from pipeline.train.normalise import normaliser

if TYPE_CHECKING:
    from pipeline.data.base import Dataset


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Return floor(examples / batch_size): a short last batch is dropped; at least one step."""
    return max(1, examples // batch_size)


def alike(order: Tensor, lengths: Tensor, size: int, generator: torch.Generator) -> Tensor:
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
    sees the same batches, and they make no GPU wait for the host within an epoch. Compressed images
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
        self.own = own(self.size)
        sentences = self.labels.ndim == 2 and not len(data.mean)
        self.lengths = (self.labels >= 0).sum(1).cpu() if sentences else None
        self.smallest = augmentation.resized_crop
        self.flipped = augmentation.flip
        if self.smallest is not None:  # mirrors what it cuts out
            augmentation = replace(augmentation, resized_crop=None, flip=False)
            if not isinstance(self.images, Compressed):
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

    def __len__(self) -> int:
        return steps_per_epoch(len(self.labels), self.size)

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one epoch's batches: float32 [B, C, H, W] channels last, and the labels [B, ...].

        A map of labels, one a pixel, is moved as its image is.
        """
        count, device = len(self.labels), self.labels.device
        order = torch.randperm(count, generator=self.order)
        if self.lengths is not None:
            order = alike(order, self.lengths, self.size, self.order)
        draws = self.augmentation.draw(count, self.draws).to(device)
        starts = range(0, len(self) * self.size, self.size)
        batches = [slice(start + self.own.start, start + self.own.stop) for start in starts]
        decoded = self._images(order, batches)
        order = order.to(device)
        for batch, found in zip(batches, decoded, strict=True):
            images, labels = found, self.labels[order[batch]]
            if images.ndim == 4:
                images = self.augmentation.apply(images, draws[batch])
            if labels.ndim == 3:
                labels = self.augmentation.apply(labels[:, None], draws[batch], IGNORE)[:, 0]
            yield self.normalise(images), labels if labels.is_floating_point() else labels.long()

    def _images(self, order: Tensor, batches: Iterable[slice]) -> Iterator[Tensor]:
        """Yield the images of each batch of ``order`` on the device, cut out where they are cut."""
        if not isinstance(self.images, Compressed):
            order = order.to(self.labels.device)
            yield from (self.images[order[batch]] for batch in batches)
            return
        cut = None
        if self.smallest is not None:
            sizes = self.images.files.sizes[order]
            cut = crops.draw(sizes, self.smallest, self.crops, flip=self.flipped)
        yield from self.images.decoded(
            ((order[batch], None if cut is None else cut[batch]) for batch in batches),
            self.labels.device,
        )
