"""State and masks of a network as a checkpoint, for the library (pipeline/api.py)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.storage.checkpoint import Checkpoint
from pipeline.train.network_masks import check_masks, masks


def checkpoint_of(model: nn.Module) -> Checkpoint:
    """Return a copy of state and masks of ``model``, on the CPU.

    Raises:
        UserError: a mask does not fit its weight, a pruned weight is not 0, or the state holds
            other things than tensors; or the errors of `check_masks`.
    """
    known = masks(model)
    check_masks(model, known)
    state = {name: value.detach().cpu().clone() for name, value in tensors(model).items()}
    for name, mask in known.items():
        if state[name][~mask].any():
            raise UserError(
                f"pruned weights of {name!r} are not 0, as after training without hold or after "
                "load_state_dict of a dense state: hold the model, which sets them to 0."
            )
    return Checkpoint(state, known, {})


def candidate(number: int, model: nn.Module | Mapping[str, Tensor]) -> Checkpoint:
    """Return the checkpoint of a model to average; a state dict is pruned where matrices are 0.

    Arguments: number, its place among the models, for messages.
    Raises: UserError for other things than models, and for NaN or infinity.
    """
    if not isinstance(model, nn.Module | Mapping):
        raise UserError(
            f"candidate {number} is a {type(model).__name__}: pass a list of networks or of state "
            "dicts."
        )
    if isinstance(model, nn.Module):
        saved = checkpoint_of(model)
    else:
        saved = Checkpoint(tensors(model), {}, {})
    for name, value in saved.state.items():
        if not value.isfinite().all():
            raise UserError(
                f"candidate {number} holds NaN or infinity in {name!r}, so training diverged: "
                "leave it out."
            )
    kept = {name: value != 0 for name, value in saved.state.items() if value.is_floating_point()}
    zeros = {name: mask for name, mask in kept.items() if mask.ndim > 1 and not mask.all()}
    return Checkpoint(saved.state, saved.masks or zeros, {})


def tensors(model: nn.Module | Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Return the state dict of ``model``, or the one that it is.

    Raises:
        UserError: it holds something else than tensors.
    """
    state = model.state_dict() if isinstance(model, nn.Module) else model
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"{name!r} of the state dict is a {type(value).__name__}: leave out what is no "
                "tensor."
            )
    return state
