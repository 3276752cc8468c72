"""Images in memory: the types that all data sets share, and the files they are kept in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pipeline.checkpoint import load_tensors, read_json, save_tensors, write_json
from pipeline.errors import UserError


@dataclass(frozen=True, eq=False)
class Split:
    """Square images, uint8 [N, C, S, S] in 0..255, and their labels, int64 [N] in 0..K-1."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        count, _, height, width = self.images.shape
        if self.images.dtype != torch.uint8 or height != width:
            raise ValueError(f"images must be uint8 [N, C, S, S], not {self.images.shape}")
        if self.labels.dtype != torch.int64 or self.labels.shape != (count,):
            raise ValueError(f"labels must be int64 [{count}], not {self.labels.shape}")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Tensor) -> "Split":
        """Return the examples at ``rows``, int64 [M], in that order."""
        return Split(self.images[rows], self.labels[rows])


@dataclass(frozen=True, eq=False)
class Groups:
    """A partition of the test images: group names, and the group of each image, int64 [N_test]."""

    names: tuple[str, ...]
    ids: Tensor


@dataclass(frozen=True, eq=False)
class RawData:
    """What a data set's file returns; without a ``val``, one is split off ``train``."""

    train: Split
    test: Split
    classes: tuple[str, ...]
    groups: Mapping[str, Groups] = field(default_factory=dict)
    val: Split | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Data ready for training; ``mean`` and ``std``, float32 [C], are of images / 255."""

    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    mean: Tensor
    std: Tensor
    groups: dict[str, Groups]
    name: str = "unnamed"


def fixed_size(name: str, size: int | None, own: int) -> None:
    """Refuse another size than the ``own`` of a data set that is never resized."""
    if size not in {None, own}:
        raise UserError(f"data.size is {size}, but {name} is {own}x{own}: leave it null")


def save(dataset: Dataset, folder: Path) -> None:
    """Write ``dataset`` into ``folder``: safetensors per split and of the groups, and meta.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "val", "test"):
        split: Split = getattr(dataset, part)
        tensors = {"images": split.images, "labels": split.labels}
        save_tensors(folder / f"{part}.safetensors", tensors)
    ids = {name: groups.ids for name, groups in dataset.groups.items()}
    save_tensors(folder / "groups.safetensors", ids)
    _, channels, size, _ = dataset.train.images.shape
    meta = {
        "name": dataset.name,
        "classes": list(dataset.classes),
        "channels": channels,
        "size": size,
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
    splits = [load_tensors(folder / f"{part}.safetensors") for part in ("train", "val", "test")]
    ids = load_tensors(folder / "groups.safetensors")
    try:
        train, val, test = (Split(split["images"], split["labels"]) for split in splits)
        return Dataset(
            train,
            val,
            test,
            classes=tuple(meta["classes"]),
            mean=torch.tensor(meta["mean"]),
            std=torch.tensor(meta["std"]),
            groups={name: Groups(tuple(of), ids[name]) for name, of in meta["groups"].items()},
            name=meta["name"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder} holds no data set ({error!r}): make it anew") from error
