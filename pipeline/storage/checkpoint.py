"""Checkpoint: the tensors, pruning masks and metadata of a model, in one safetensors file.

A tensor with a mask is stored as kept positions and kept values (pipeline/storage/sparse_codec.py),
so a 98 % sparse model takes a fortieth of its dense size. Equal checkpoints are equal bytes, as a
cache keyed by hashes needs, and reading one runs no code. The file's metadata is one JSON text:

    {"version": 1, "meta": {...}, "state": [tensor names, in order],
     "masked": [[name, "bits" or "gaps", shape], in order]}
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import UserError
from pipeline.storage.atomic_files import read_json, write_json
from pipeline.storage.sparse_codec import pack, unpack
from pipeline.storage.tensors import AGAIN, BROKEN, damaged, load_tensors, read, save_tensors

__all__ = [
    "Checkpoint",
    "load",
    "load_tensors",
    "open_checkpoint",
    "read_json",
    "save",
    "save_tensors",
    "sparsity",
    "write_json",
]

FORMAT = "sparse-model-soups"
VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """A network's state, masks and metadata.

    Args:
        state: the module's state_dict, parameters and buffers, on the CPU; zero where pruned.
        masks: bool, True where a weight is kept, by parameter name; empty while dense.
        meta: as JSON: network, classes, channels, phase, sparsity; also precision
            and augmentation of the training where they are not the defaults.
        path: the file that it was read from, for messages.
    """

    state: Mapping[str, torch.Tensor]
    masks: Mapping[str, torch.Tensor]
    meta: dict[str, Any]
    path: Path | None = field(default=None, compare=False)


def sparsity(checkpoint: Checkpoint, names: Iterable[str]) -> float:
    """Return the fraction in [0, 1] of the weights in ``names`` that the masks prune."""
    total = pruned = 0
    for name in names:
        total += checkpoint.state[name].numel()
        if name in checkpoint.masks:
            pruned += int((~checkpoint.masks[name]).count_nonzero())
    return pruned / total if total else 0.0


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` atomically; kept values are stored bit for bit.

    Raises:
        UserError: a tensor holds NaN or infinity.
    """
    tensors: dict[str, torch.Tensor] = {}
    masked = []
    for name, tensor in checkpoint.state.items():
        if not torch.isfinite(tensor).all():
            raise UserError(
                f"{path} is not written because {name!r} holds NaN or infinity, so training "
                "diverged: lower the learning rate."
            )
        if name not in checkpoint.masks:
            tensors[name] = tensor
    for name, mask in checkpoint.masks.items():
        kind, where, values = pack(checkpoint.state[name], mask)
        tensors[f"{name}:{kind}"] = where
        tensors[f"{name}:values"] = values
        masked.append([name, kind, list(mask.shape)])
    header = {
        "version": VERSION,
        "meta": checkpoint.meta,
        "state": list(checkpoint.state),
        "masked": masked,
    }
    # One metadata key only: safetensors would write several in a random order.
    save_tensors(path, tensors, {FORMAT: json.dumps(header, sort_keys=True, allow_nan=False)})


def load(path: Path) -> Checkpoint:
    """Read what `save` wrote.

    Raises:
        UserError: the file is missing, truncated, foreign, or of a newer version.
    """
    tensors, metadata = read(path)
    header = _header(path, metadata)
    masks = {}
    try:
        for name, kind, shape in header["masked"]:
            where, values = tensors[f"{name}:{kind}"], tensors[f"{name}:values"]
            tensors[name], masks[name] = unpack(kind, where, values, shape)
        state = {name: tensors[name] for name in header["state"]}
    except BROKEN as error:
        raise damaged(path, error) from error
    return Checkpoint(state, masks, header["meta"], path)


def open_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint of `load`, but read each tensor from the file whenever it is used.

    So many checkpoints can be averaged tensor by tensor in the memory of one. The errors of `load`
    are raised when a tensor is read.
    """
    header = _header(path, read(path, ())[1])
    masked = {name: (kind, shape) for name, kind, shape in header["masked"]}

    def tensor(name: str) -> torch.Tensor:
        return mask_and_tensor(name)[1] if name in masked else read(path, (name,))[0][name]

    def mask_and_tensor(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        kind, shape = masked[name]
        keys = f"{name}:{kind}", f"{name}:values"
        parts, _ = read(path, keys)
        try:
            values, mask = unpack(kind, parts[keys[0]], parts[keys[1]], shape)
        except BROKEN as error:
            raise damaged(path, error) from error
        return mask, values

    state = _OnDemand(header["state"], tensor)
    return Checkpoint(
        state, _OnDemand(masked, lambda name: mask_and_tensor(name)[0]), header["meta"], path
    )


class _OnDemand(Mapping[str, torch.Tensor]):
    """Tensors by name, each made by a function whenever it is used."""

    def __init__(self, names: Iterable[str], make: Callable[[str], torch.Tensor]) -> None:
        self.names, self.make = dict.fromkeys(names), make

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self.names:
            raise KeyError(name)
        return self.make(name)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _header(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the checked metadata of a checkpoint file."""
    if FORMAT not in metadata:
        raise UserError(
            f"{path} is a safetensors file but no checkpoint of this pipeline: name one that "
            "pipeline.api.save wrote, or the model.safetensors of a stage."
        )
    try:
        header: dict[str, Any] = json.loads(metadata[FORMAT])
        version = header["version"]
        fits = version != VERSION or _fits(header)
    except BROKEN as error:
        raise damaged(path, error) from error
    if version != VERSION:
        raise UserError(
            f"{path} has checkpoint version {version}, this code reads {VERSION}: delete it, then "
            f"{AGAIN}."
        )
    if not fits:
        raise damaged(path)
    return header


def _fits(header: dict[str, Any]) -> bool:
    """Say whether the names, codes and shapes of a header have the types that `save` writes."""
    masked = [isinstance(name, str) and kind in {"bits", "gaps"} and isinstance(shape, list)
              and all(type(side) is int and side >= 0 for side in shape)
              for name, kind, shape in header["masked"]]  # fmt: skip
    named = isinstance(header["state"], list) and all(type(n) is str for n in header["state"])
    return all(masked) and named and isinstance(header["meta"], dict)
