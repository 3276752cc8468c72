"""Preparation of a data set: read by name, validation split off, mean and deviation computed.

A data set is a file of this folder with one function ``read(root, size) -> RawData``; to add one,
add a file. All other code uses the `Dataset`.
"""

import math
from collections import Counter
from dataclasses import replace
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
    if problem := _repeated_name(raw) or _misfit_groups(raw):
        raise UserError(f"data.name is {name!r}, whose {problem}")
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


def _repeated_name(raw: RawData) -> str | None:
    """Return which classes or groups share a name, if any: scores are kept by name."""
    named = {f"groups {key!r}": groups.names for key, groups in raw.groups.items()}
    for what, names in {"classes": raw.classes, **named}.items():
        name, count = Counter(names).most_common(1)[0] if names else ("", 0)
        if count > 1:
            return f"{what} have the name {name!r} {count} times: give each a name of its own"
    return None


def _misfit_groups(raw: RawData) -> str | None:
    """Return which groups do not number the examples of their split, if any."""
    for key, groups in raw.groups.items():
        last = len(groups.names) - 1
        for part, ids, split in (
            ("test", groups.ids, raw.test),
            ("train", groups.train, raw.train),
        ):
            if ids is not None and (
                ids.shape != (len(split),) or not 0 <= int(ids.min()) <= int(ids.max()) <= last
            ):
                return (
                    f"groups {key!r} do not fit {part}: give each of its {len(split)} examples a "
                    f"number from 0 to {last}"
                )
    return None


def split_rows(count: int, fraction: float = 0.1, *, seed: int) -> tuple[Tensor, Tensor]:
    """Return the rows of (training, validation): a random ``fraction`` of ``count`` is held out.

    A plain seeded permutation, not stratified; both parts are in ascending order, int64.

    Raises:
        UserError: either part would be empty.

    Source: paper, Section 3 ("for validation, we use 10 % of the training data").
    """
    held_out = round(fraction * count)
    if not 0 < held_out < count:
        raise UserError(
            f"{fraction:.0%} of {count} training images leaves an empty validation or "
            "training split: give more training images, or a validation set of your own"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[held_out:].sort().values, order[:held_out].sort().values


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
    train, val, groups = raw.train, raw.val, dict(raw.groups)
    if val is None:
        kept, held_out = split_rows(len(train), seed=seed)
        train, val = train.take(kept), train.take(held_out)
        groups = {
            key: each if each.train is None else replace(each, train=each.train[kept])
            for key, each in groups.items()
        }
    if raw.scale is not None:
        mean, std = raw.scale
    elif train.images.dtype == torch.uint8:
        mean, std = statistics(train.images[:])
    else:
        mean = std = torch.empty(0)
    if raw.test.labels.ndim == 1 and not raw.test.labels.is_floating_point():
        groups = {"classes": Groups(raw.classes, raw.test.labels), **groups}
    return Dataset(train, val, raw.test, raw.classes, mean, std, groups, name, raw.task, raw.extras)
