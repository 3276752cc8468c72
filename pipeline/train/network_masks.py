"""The masks of a network: an attribute that its copies share, held in training on request."""

from collections.abc import Mapping
from itertools import chain
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

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
    chosen = masks(model) if new is None else new
    check_masks(model, chosen)
    if not chosen:
        raise UserError("the network has no masks to hold: prune it first, or pass masks.")
    release(model)
    set_masks(model, chosen)
    _held[model] = Hold(model, masks(model))
    return model


def check_masks(model: nn.Module, chosen: Mapping[str, Tensor]) -> None:
    """Check that masks are bool and have names and shapes of parameters of ``model``.

    Raises:
        UserError: one is not or has not, such as that of a layer which was replaced; or the errors
            of `parameters`.
    """
    known = parameters(model)
    for name, mask in chosen.items():
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise UserError(
                f"the mask {name!r} is a {kind}: make it a tensor of torch.bool, True where a "
                "weight is kept."
            )
        if name not in known or known[name].shape != mask.shape:
            raise UserError(
                f"the mask {name!r} of shape {list(mask.shape)} fits no parameter of the network: "
                "pass to hold the masks of its parameters, without those of layers that were "
                "replaced or removed after prune."
            )


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
    """Return the parameters by each of their names.

    Raises:
        UserError: FSDP has sharded the network, or the errors of `check_values`.
    """
    check_values(model)
    refuse_sharded(model)
    return dict(model.named_parameters(remove_duplicate=False))


def check_values(model: nn.Module) -> None:
    """Check that ``model`` is a network whose parameters and buffers have values.

    Raises:
        UserError: it is no network; or a tensor is lazy or on the meta device.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"the network is a {type(model).__name__}: pass a torch.nn.Module.")
    for name, value in chain(model.named_parameters(), model.named_buffers()):
        if is_lazy(value) or value.is_meta:
            raise UserError(
                f"{name!r} of the network has no values yet, as it is lazy or on the meta device: "
                "load its weights, or run the network on a batch, before."
            )
