"""Data set types (splits, groups, statistics), and the files in which a data set is stored."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.data.formats.lazy_images import Images, LazyImages
from pipeline.data.formats.packed_images import pack, unpack
from pipeline.errors import UserError
from pipeline.storage.checkpoint import load_tensors, read_json, save_tensors, write_json
from pipeline.storage.tensors import BROKEN

PACKED = "-images.safetensors"  # file of a split whose images are compressed
IGNORE = -100  # label of positions that are not counted, the default of torch's cross_entropy


@dataclass(frozen=True, eq=False)
class Split:
    """Examples and their labels.

    Attributes: images, uint8 [N, C, H, W] in 0..255, or token ids, int64 [N, ...]; labels, int64
    [N] in 0..K-1, or one a pixel [N, H, W] or token [N, L], `IGNORE` where not counted. Maps of
    up to 128 classes may be int8, an eighth of the memory; quantities are floating point. Images
    that would not fit in memory are `LazyImages`, which have the interface of the tensor.
    """

    images: Images
    labels: Tensor
    text: Tensor | None = None  # the labels as written text, UTF-8, uint8 [N, ...]

    def __post_init__(self) -> None:
        pixels = self.images.dtype == torch.uint8 and self.images.ndim == 4
        if not pixels and self.images.dtype != torch.int64:
            raise ValueError(
                f"images must be uint8 [N, C, H, W] or token ids, not {self.images.dtype} "
                f"{tuple(self.images.shape)}"
            )
        count = len(self.images)
        small_map = self.labels.dtype == torch.int8 and self.labels.ndim > 1
        fits = self.labels.dtype == torch.int64 or self.labels.is_floating_point() or small_map
        if not fits or self.labels.shape[:1] != (count,):
            raise ValueError(
                f"labels must be int64 or floating point [{count}, ...], not {self.labels.dtype} "
                f"{tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Tensor) -> "Split":
        """Return the examples at ``rows``, int64 [M], in that order."""
        text = None if self.text is None else self.text[rows]
        images: Images
        if isinstance(self.images, LazyImages):
            images = self.images.take(rows)
        else:
            images = self.images[rows]
        return Split(images, self.labels[rows], text)


@dataclass(frozen=True, eq=False)
class Groups:
    """A partition of the test images: group names, and the group of each image, int64 [N_test].

    ``train`` is the group of each training image, int64 [N_train], if the data set has it.
    """

    names: tuple[str, ...]
    ids: Tensor
    train: Tensor | None = None


@dataclass(frozen=True, eq=False)
class RawData:
    """A data set as its file returns it; without a ``val``, one is split off ``train``.

    ``task`` is a file of pipeline/tasks; ``extras`` are further tensors that it needs, such as a
    vocabulary. ``scale`` is the mean and standard deviation of images / 255, if they are given and
    not computed from the training split.
    """

    train: Split
    test: Split
    classes: tuple[str, ...]
    groups: Mapping[str, Groups] = field(default_factory=dict)
    val: Split | None = None
    task: str = "classification"
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    scale: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """A prepared data set; ``mean`` and ``std``, float32 [C], are of images / 255.

    They are empty if the examples are token ids.
    """

    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    mean: Tensor
    std: Tensor
    groups: dict[str, Groups]
    name: str = "unnamed"
    task: str = "classification"
    extras: Mapping[str, Tensor] = field(default_factory=dict)


def fixed_size(name: str, size: int | None, native: int) -> None:
    """Check that ``size`` is None or the ``native`` one of a data set that is never resized."""
    if size not in {None, native}:
        raise UserError(f"data.size is {size}, but {name} is {native}x{native}: leave it null")


def save(dataset: Dataset, folder: Path) -> None:
    """Write ``dataset`` into ``folder``: safetensors per split and of the groups, and meta.json.

    Compressed images have a separate file (pipeline/data/formats/packed_images.py).
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "val", "test"):
        split: Split = getattr(dataset, part)
        tensors = {"labels": split.labels}
        if isinstance(split.images, LazyImages):
            pack(folder / f"{part}{PACKED}", split.images)
        else:
            tensors["images"] = split.images[:]
        if split.text is not None:
            tensors["text"] = split.text
        save_tensors(folder / f"{part}.safetensors", tensors)
    ids = {name: groups.ids for name, groups in dataset.groups.items()}
    ids |= {f"{n}/train": g.train for n, g in dataset.groups.items() if g.train is not None}
    save_tensors(folder / "groups.safetensors", ids)
    if dataset.extras:
        save_tensors(folder / "extras.safetensors", dataset.extras)
    meta = {
        "name": dataset.name,
        "classes": list(dataset.classes),
        "shape": list(dataset.train.images.shape[1:]),
        "task": dataset.task,
        "mean": dataset.mean.tolist(),
        "std": dataset.std.tolist(),
        "groups": {name: list(groups.names) for name, groups in dataset.groups.items()},
    }
    write_json(folder / "meta.json", meta)


def load(folder: Path) -> Dataset:
    """Return what `save` wrote into ``folder``.

    Raises:
        UserError: the files are missing or not a data set.
    """
    meta = read_json(folder / "meta.json")
    ids = load_tensors(folder / "groups.safetensors")
    extras = folder / "extras.safetensors"
    try:
        train, val, test = (_split(folder, part, meta) for part in ("train", "val", "test"))
        return Dataset(
            train,
            val,
            test,
            classes=tuple(meta["classes"]),
            mean=torch.tensor(meta["mean"]),
            std=torch.tensor(meta["std"]),
            groups={
                name: Groups(tuple(names), ids[name], ids.get(f"{name}/train"))
                for name, names in meta["groups"].items()
            },
            name=meta["name"],
            task=meta["task"],
            extras=load_tensors(extras) if extras.exists() else {},
        )
    except BROKEN as error:
        reason = " ".join(repr(error).split())[:300]
        raise UserError(
            f"{folder} is not a data set ({reason}): delete it and run `dvc repro`."
        ) from error


def _split(folder: Path, part: str, meta: Mapping[str, Any]) -> Split:
    tensors, packed = load_tensors(folder / f"{part}.safetensors"), folder / f"{part}{PACKED}"
    side, labels = meta["shape"][-1], tensors["labels"]
    if type(side) is not int or not 0 < side < 2**16:
        raise ValueError(f"shape is {meta['shape']}")
    whole = labels.ndim == 1 and not labels.is_floating_point() and len(labels) > 0
    if whole and not 0 <= int(labels.min()) <= int(labels.max()) < len(meta["classes"]):
        raise ValueError(f"labels of {part} are not in [0, {len(meta['classes'])})")
    images = unpack(packed, side) if packed.exists() else tensors["images"]
    return Split(images, labels, tensors.get("text"))
