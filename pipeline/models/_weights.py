"""Pretrained weights: read from a file and checked key by key against the network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.channels.classifier import classifier
from pipeline.errors import UserError
from pipeline.events import emit
from pipeline.storage.checkpoint import load_tensors


def load_weights(model: nn.Module, path: Path) -> list[str]:
    """Load pretrained weights into ``model`` in place, without running code of the file.

    A classifier for another number of classes keeps its random weights; the names of its parameters
    are printed and returned. If the file is of an image classifier whose layers before its last are
    the network's ``backbone``, everything around the backbone keeps its random weights too.

    Args:
        model: the network, its classifier the last Linear or convolution.
        path: a .safetensors, .pt or .pth file of a state dict.

    Raises:
        UserError: another kind of file, or a key that is missing, unknown or of another shape.
    """
    initial, loaded = model.state_dict(), _read(path)
    if hasattr(model, "backbone") and initial.keys().isdisjoint(loaded):
        loaded = _around(initial, loaded)
    kept = [key for key in _classifier(model) if _other_classes(loaded.get(key), initial[key])]
    for key, tensor in loaded.items():
        if key in getattr(model, "redundant", ()):  # a copy of another tensor in the file
            continue
        if key not in initial:
            raise _other_network(path, f"it has {key}, which the network does not have")
        if key not in kept and tensor.shape != initial[key].shape:
            shapes = f"{list(tensor.shape)}, in the network {list(initial[key].shape)}"
            raise _other_network(path, f"its {key} has shape {shapes}")
    for key in initial:
        # Files from before torch 0.4.1 lack BatchNorm's counter, which is not used here.
        if key not in loaded and not key.endswith("num_batches_tracked"):
            raise _other_network(path, f"it has no {key}")
    fitting = {key: tensor for key, tensor in loaded.items() if key not in kept}
    model.load_state_dict(fitting, strict=False)
    if kept:
        emit(new_classifier=" ".join(kept))
    return kept


def _around(initial: Mapping[str, Tensor], loaded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``loaded`` as the backbone of the network, with the ``initial`` weights around it.

    A single layer that the backbone does not have is the file's classifier and is left out.
    """
    inside = {f"backbone.{key}": value for key, value in loaded.items()}
    outside = {key: value for key, value in initial.items() if not key.startswith("backbone.")}
    unknown = inside.keys() - initial.keys()
    if len({key.rpartition(".")[0] for key in unknown}) == 1:
        inside = {key: value for key, value in inside.items() if key not in unknown}
    emit(new_around_backbone=len(outside))
    return outside | inside


def _classifier(model: nn.Module) -> list[str]:
    layer = classifier(model)
    if layer is None:
        return []
    return [f"{layer}.{name}" for name, _ in model.get_submodule(layer).named_parameters()]


def _other_classes(loaded: Tensor | None, initial: Tensor) -> bool:
    """Return whether the shapes differ in the first dimension, the classes, only."""
    if loaded is None or loaded.ndim != initial.ndim:
        return False
    return loaded.shape[0] != initial.shape[0] and loaded.shape[1:] == initial.shape[1:]


def _other_network(path: Path, why: str) -> UserError:
    return UserError(
        f"network.weights is {path}, which does not fit the network: {why}; name the network it "
        "was saved from"
    )


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise UserError(f"network.weights is {path}, which does not exist")
    if path.suffix == ".safetensors":
        try:
            return load_tensors(path)
        except UserError as error:
            raise UserError(
                f"network.weights is {path}, which is truncated or not a safetensors file: save or "
                "download it again, or name another file"
            ) from error
    if path.suffix not in {".pt", ".pth"}:
        raise UserError(
            f"network.weights is {path}, which must be a .safetensors, .pt or .pth file: save the "
            "state dict as one"
        )
    try:
        value: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of something else may end the unpickler by any exception
        raise UserError(
            f"network.weights is {path}, which is damaged or holds more than tensors: save "
            "model.state_dict() in it"
        ) from error
    if not isinstance(value, Mapping) or not all(isinstance(v, Tensor) for v in value.values()):
        raise UserError(
            f"network.weights is {path}, which is not a state dict: save model.state_dict() in it"
        )
    return value
