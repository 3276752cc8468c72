"""Examples in memory: the types that all data sets share, and the files they are kept in."""

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

PACKED = "-images.safetensors"  # of a split whose images are compressed
IGNORE = -100  # a label that does not count: what torch.nn.functional.cross_entropy leaves out


@dataclass(frozen=True, eq=False)
class Split:
    """Examples and what is to be learned of each.

    Attributes: images, uint8 [N, C, H, W] in 0..255, or token ids, int64 [N, ...]; labels, int64
    [N] in 0..K-1, or one a pixel [N, H, W] or token [N, L], where `IGNORE` does not count. Maps of
    up to 128 classes may be int8, an eighth of the memory; quantities are floating point. Images
    that would not fit in memory are `LazyImages`, and look like the tensor.
    """

    images: Images
    labels: Tensor
    text: Tensor | None = None  # the labels as people write them, UTF-8, uint8 [N, ...]

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
        own = self.images
        images: Images = own.take(rows) if isinstance(own, LazyImages) else own[rows]
        return Split(images, self.labels[rows], text)


@dataclass(frozen=True, eq=False)
class Groups:
    """A partition of the test images: group names, and the group of each image, int64 [N_test].

    ``train`` is the group of each training image, int64 [N_train], where the data set knows it.
    """

    names: tuple[str, ...]
    ids: Tensor
    train: Tensor | None = None


@dataclass(frozen=True, eq=False)
class RawData:
    """What a data set's file returns; without a ``val``, one is split off ``train``.

    ``task`` is the file of pipeline/tasks that says what is learned; ``extras`` are what else it
    needs, as a vocabulary. ``scale`` is the mean and the deviation of images / 255 where they are
    given, and not to be taken of the training split.
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
    """Data ready for training; ``mean`` and ``std``, float32 [C], are of images / 255.

    They are empty where the examples are token ids.
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


def fixed_size(name: str, size: int | None, own: int) -> None:
    """Refuse another size than the ``own`` of a data set that is never resized."""
    if size not in {None, own}:
        raise UserError(f"data.size is {size}, but {name} is {own}x{own}: leave it null")


def save(dataset: Dataset, folder: Path) -> None:
    """Write ``dataset`` into ``folder``: safetensors per split and of the groups, and meta.json.

    Compressed images have a file of their own (pipeline/data/formats/packed_images.py).
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
        UserError: the files are absent or not a data set.
    """
    meta = read_json(folder / "meta.json")
    ids = load_tensors(folder / "groups.safetensors")
    more = folder / "extras.safetensors"
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
                name: Groups(tuple(of), ids[name], ids.get(f"{name}/train"))
                for name, of in meta["groups"].items()
            },
            name=meta["name"],
            task=meta["task"],
            extras=load_tensors(more) if more.exists() else {},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder} holds no data set ({error!r}): make it anew") from error


def _split(folder: Path, part: str, meta: Mapping[str, Any]) -> Split:
    tensors, packed = load_tensors(folder / f"{part}.safetensors"), folder / f"{part}{PACKED}"
    images = unpack(packed, meta["shape"][-1]) if packed.exists() else tensors["images"]
    return Split(images, tensors["labels"], tensors.get("text"))
