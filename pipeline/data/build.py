"""Preparation of a data set: read by name, validation split off, mean and deviation computed.

A data set is a file of this folder with one function ``read(root, size) -> RawData``; to add one,
add a file. All other code uses the `Dataset`.
"""

import math
from pathlib import Path

import torch
from torch import Tensor

from pipeline import registry
from pipeline.data.base import Dataset, Groups, RawData, Split
from pipeline.errors import UserError


def read(name: str, root: Path | None = None, size: int | None = None) -> RawData:
    """Return the data set ``name``, read by its file.

    Args:
        name: a file of this folder.
        root: the folder of its images.
        size: the side of its images in pixels, or the largest number of tokens of a sentence;
            None is the data set's default.

    Raises:
        UserError: there is no such data set, or its files are missing or damaged; or a file of the
            user's returns no `RawData`, or labels that are none of its classes.
    """
    raw: RawData = registry.load("data", name, "data.name").read(root, size)
    if not isinstance(raw, RawData):
        raise UserError(
            f"data.name is {name!r}, which returns {type(raw).__name__}: it must return a "
            "pipeline.data.base.RawData"
        )
    for part in ("train", "val", "test"):
        split = getattr(raw, part)
        if split is not None and (problem := _problem(split, raw)):
            raise UserError(f"data.name is {name!r}, whose {part} {problem}")
    return raw


def _problem(split: Split, raw: RawData) -> str | None:
    """Return what is wrong with a split of ``raw``, if anything; the text continues "whose"."""
    shape, there = list(split.images.shape[1:]), list(raw.train.images.shape[1:])
    if not len(split):
        return "split has no example: give it some"
    if shape != there:
        return f"examples have the shape {shape}, but those of train {there}: make them equal"
    labels = split.labels
    if labels.ndim > 1 or labels.is_floating_point():
        return None
    low, high = int(labels.min()), int(labels.max())
    if not 0 <= low <= high < len(raw.classes):
        return (
            f"labels are from {low} to {high}, but there are {len(raw.classes)} classes: number "
            "them from 0"
        )
    return None


def split_validation(split: Split, fraction: float = 0.1, *, seed: int) -> tuple[Split, Split]:
    """Return (training, validation): a random ``fraction`` of the examples is held out.

    A plain seeded permutation, not stratified; both parts keep the order of ``split``.

    Raises:
        UserError: either part would be empty.

    Source: paper, Section 3 ("for validation, we use 10 % of the training data").
    """
    held_out = round(fraction * len(split))
    if not 0 < held_out < len(split):
        raise UserError(
            f"{fraction:.0%} of {len(split)} training images leaves an empty validation or "
            "training split: give more training images, or a validation set of your own"
        )
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    return (
        split.take(order[held_out:].sort().values),
        split.take(order[:held_out].sort().values),
    )


def statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of ``images / 255`` per channel, float32 [C] each.

    With n pixels x of a channel: mean = sum(x) / 255n, std = sqrt(n sum(x^2) - sum(x)^2) / 255n.
    The sums are exact integers, from a histogram of the 256 values, so no bit depends on the order
    of the images or the number of threads.

    Args:
        images: uint8 [N, C, S, S].

    Raises:
        UserError: a channel is constant and cannot be normalised.
    """
    means, deviations = [], []
    for channel in range(images.shape[1]):
        histogram = torch.bincount(images[:, channel].flatten(), minlength=256).tolist()
        count = sum(histogram)
        total = sum(value * pixels for value, pixels in enumerate(histogram))
        squares = sum(value * value * pixels for value, pixels in enumerate(histogram))
        spread = math.sqrt(count * squares - total * total)
        if spread == 0:
            raise UserError(
                f"channel {channel} of the training images has one value everywhere and cannot be "
                "normalised: check the images"
            )
        means.append(total / (255 * count))
        deviations.append(spread / (255 * count))
    return torch.tensor(means), torch.tensor(deviations)


def prepare(name: str, raw: RawData, *, seed: int) -> Dataset:
    """Return ``raw`` as the data set ``name``: validation split off, statistics computed.

    Statistics are those of the training split, unless the data set gives them. If an example has
    one class, the classes are a group set.
    """
    if raw.val is None:
        train, val = split_validation(raw.train, seed=seed)
    else:
        train, val = raw.train, raw.val
    if raw.scale is not None:
        mean, std = raw.scale
    elif train.images.dtype == torch.uint8:
        mean, std = statistics(train.images[:])
    else:
        mean = std = torch.empty(0)
    groups = dict(raw.groups)
    if raw.test.labels.ndim == 1 and not raw.test.labels.is_floating_point():
        groups = {"classes": Groups(raw.classes, raw.test.labels), **groups}
    return Dataset(train, val, raw.test, raw.classes, mean, std, groups, name, raw.task, raw.extras)
