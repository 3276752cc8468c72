"""The masks of a network: an attribute that its copies share, held in training on request."""

from collections.abc import Mapping
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.train.hold import Hold, refuse_sharded

ATTRIBUTE = "_pruning_masks"
Network = TypeVar("Network", bound=nn.Module)
_held: WeakKeyDictionary[nn.Module, Hold] = WeakKeyDictionary()


def masks(model: nn.Module) -> dict[str, Tensor]:
    """Return the masks of ``model``, on the CPU; none while it is dense."""
    return dict(getattr(model, ATTRIBUTE, {}))


def hold(model: Network, new: Mapping[str, Tensor] | None = None) -> Network:
    """Keep the pruned weights of ``model`` at +0.0 in training (`pipeline.train.hold`); return it.

    The order of `hold`, the optimiser and DistributedDataParallel does not matter. Copies of the
    network are not held: hold each.

    Arguments: new, masks that replace those of the model; by default it has them from `prune`.
    Raises: UserError for masks that do not fit, a model without masks, and FSDP.
    """
    known, chosen = parameters(model), masks(model) if new is None else new
    if not chosen:
        raise UserError("the network has no masks to hold: prune it first, or pass masks.")
    for name, mask in chosen.items():
        if name not in known or known[name].shape != mask.shape:
            raise UserError(
                f"the mask {name!r} of shape {list(mask.shape)} fits no parameter of the network: "
                "pass masks of this network."
            )
    release(model)
    set_masks(model, chosen)
    _held[model] = Hold(model, masks(model))
    return model


def release(model: nn.Module) -> None:
    """Undo `hold`: the weights of ``model`` stay as they are, and it keeps its masks."""
    held = _held.pop(model, None)
    if held:
        held.remove()


def set_masks(model: nn.Module, new: Mapping[str, Tensor]) -> None:
    """Give ``model`` masks, zero where they prune; hold them if others are held."""
    chosen = {name: mask.detach().cpu().bool() for name, mask in new.items()}
    setattr(model, ATTRIBUTE, chosen)
    with torch.no_grad():
        for name, weight in parameters(model).items():
            if name in chosen:
                weight.masked_fill_(~chosen[name].to(weight.device), 0)
    if model in _held:
        release(model)
        _held[model] = Hold(model, chosen)


def parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters by each of their names; refuse a network that FSDP has sharded."""
    refuse_sharded(model)
    return dict(model.named_parameters(remove_duplicate=False))
