"""Shrunk checkpoint: the tensors of a network without its pruned filters, and the kept filters.

One safetensors file. Its metadata is one JSON text, {"version": 1, "network", "classes",
"channels", "kept": {convolution: [indices of the kept filters]}}, from which the layers are built;
reading it runs no code from the file.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.channels.shrink import shrink
from pipeline.errors import UserError
from pipeline.storage.tensors import BROKEN, damaged, read, save_tensors

SMALL = "small.safetensors"
FORMAT = "sparse-model-soups-small"
VERSION = 1


def save(path: Path, small: nn.Module, kept: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write ``small``, the result of `shrink` with ``kept`` for the network of ``meta``."""
    header = {
        "version": VERSION,
        **{key: meta[key] for key in ("network", "classes", "channels")},
        "kept": {name: mask.nonzero().view(-1).tolist() for name, mask in kept.items()},
    }
    save_tensors(path, small.state_dict(), {FORMAT: json.dumps(header, sort_keys=True)})


def load(path: Path, build: Callable[[str, int, int], nn.Module]) -> nn.Module:
    """Return the network that `save` wrote, in evaluation mode.

    Args:
        path: the file.
        build: (name, classes, channels) -> the network with all filters, of any weights.

    Raises:
        UserError: the file is missing, truncated, foreign, or of a newer version.
    """
    tensors, metadata = read(path)
    try:
        header = json.loads(metadata.get(FORMAT, "{}"))
        version = header.get("version")
    except BROKEN as error:
        raise damaged(path, error) from error
    if version != VERSION:
        raise UserError(
            f"{path} is no network without its pruned filters in format version {VERSION}: name "
            f"the {SMALL} that the stage shrink wrote."
        )
    try:
        model = build(header["network"], header["classes"], header["channels"])
        kept = {name: _mask(model, name, indices) for name, indices in header["kept"].items()}
        small = shrink(model, kept)
        small.load_state_dict(tensors)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except BROKEN as error:
        raise damaged(path, error) from error
    return small


def _mask(model: nn.Module, name: str, indices: list[int]) -> Tensor:
    mask = torch.zeros(len(model.get_parameter(f"{name}.weight")), dtype=torch.bool)
    mask[indices] = True
    return mask
