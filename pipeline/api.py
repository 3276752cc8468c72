"""Library for any training loop: pruning, averaging and checkpoints of any nn.Module.

    metrics = prune(model, 0.9)              masks, and zeros where they prune
    hold(model)                              the zeros stay, in any loop, under any optimiser
    soup = average([model, other])           as sparse as each
    reestimate_batchnorm(soup, batches)
    scheduler = RetrainLR(optimizer, "ALLR", ...)
    save(soup, path); load(model, path)      sparse checkpoints, which run no code

Masks are bool, True where a weight is kept, by parameter name. The network carries them, so copies
of it (copy.deepcopy) have them too; its state dict has only the zeros. docs/api.md has examples.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from math import fsum
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pipeline.averaging import check, weighted_sum
from pipeline.errors import UserError
from pipeline.prune.network import prune_network
from pipeline.prune.prunable import prunable
from pipeline.schedules.lr_scheduler import RetrainLR
from pipeline.soup import uniform
from pipeline.storage import checkpoint
from pipeline.storage.checkpoint import Checkpoint
from pipeline.train.loader_inputs import inputs_on, run, size
from pipeline.train.network_masks import hold, masks, parameters, release, set_masks
from pipeline.train.running_statistics import average_over

__all__ = [
    "RetrainLR",
    "UserError",
    "average",
    "hold",
    "load",
    "masks",
    "prune",
    "reestimate_batchnorm",
    "release",
    "save",
    "sparsity",
]

Model = TypeVar("Model", nn.Module, Mapping[str, Tensor])


def prune(  # noqa: PLR0913
    model: nn.Module,
    sparsity: float,
    *,
    criterion: str = "magnitude",
    allocation: str = "global",
    structure: str = "weights",
    seed: int | None = None,
    example: Tensor | None = None,
) -> dict[str, Any]:
    """Prune ``model`` in place to ``sparsity``; arguments and metrics are those of `prune_network`.

    Weights that an earlier call pruned stay pruned. Where masks are held, the new ones are held.

    Raises:
        UserError: a wrong argument, nothing to prune, FSDP, or a weight that is not finite. The
            network is unchanged then.
    """
    names, known = prunable(model), parameters(model)
    computed = [name for name in names if name not in known]
    if computed:
        raise UserError(f"{computed[0]!r} has a parametrisation: remove that, then prune.")
    parent = _checkpoint(model)
    pruned, metrics = prune_network(
        parent,
        model,
        sparsity,
        structure=structure,
        criterion=criterion,
        allocation=allocation,
        seed=seed,
        example=example,
    )
    for name in parent.masks.keys() & names:
        before = parent.masks[name]
        if (pruned.masks.get(name, torch.ones_like(before)) & ~before).any():
            raise UserError(
                f"single weights of {name!r} are pruned, and pruning filters would undo that: "
                "prune filters first."
            )
    set_masks(model, {**parent.masks, **pruned.masks})
    return metrics


def sparsity(model: nn.Module) -> float:
    """Return the fraction in [0, 1] of the prunable weights of ``model`` that are exactly 0."""
    weights = [model.get_parameter(name) for name in prunable(model)]
    total = sum(weight.numel() for weight in weights)
    return sum(int((weight == 0).sum()) for weight in weights) / total if total else 0.0


def average(models: Sequence[Model], weights: Sequence[float] | None = None) -> Model:
    """Return the soup sum_i w_i theta_i of networks, or of state dicts, that share their masks.

    It has these masks. Its BatchNorm statistics are to be re-estimated (`reestimate_batchnorm`).

    Arguments: models, left unchanged; a state dict is pruned where its matrices and kernels are 0.
    weights, w_i, with a sum of 1; by default all 1 / m (UniformSoup).
    Raises: UserError for other keys, shapes, dtypes or masks than the first's, and for weights that
    do not fit.
    """
    if len({isinstance(model, nn.Module) for model in models}) > 1:
        raise UserError("networks and state dicts are mixed: pass models of one kind.")
    candidates = [_candidate(model) for model in models]
    check(candidates)
    if weights is None:
        state = uniform.merge(candidates).checkpoint.state
    elif len(weights) == len(models) and abs(fsum(weights) - 1) <= 1e-6:
        state = weighted_sum([each.state for each in candidates], weights)
    else:
        raise UserError(f"weights is {list(weights)}: it must have one a model, with a sum of 1.")
    if not isinstance(models[0], nn.Module):
        return state
    soup = copy.deepcopy(models[0])
    soup.load_state_dict(state)
    return soup


def reestimate_batchnorm(model: nn.Module, batches: Iterable[Any]) -> None:
    """Replace the running statistics of ``model`` by averages over ``batches`` (`average_over`).

    A batch is an input, a tuple or list that begins with one, or a dict of keyword arguments; its
    tensors are moved to the model's device. Pass training data in random order, not augmented.

    Raises:
        UserError: no batch, or one of another kind. The statistics are unchanged then.
    """
    device = next((each.device for each in model.parameters()), torch.device("cpu"))
    average_over(model, inputs_on(device, batches), size, lambda inputs: run(model, inputs))


def save(model: nn.Module, path: Path | str) -> None:
    """Write state and masks of ``model`` to a sparse checkpoint (safetensors), atomically."""
    checkpoint.save(Path(path), _checkpoint(model))


def load(model: nn.Module, path: Path | str) -> None:
    """Load a checkpoint of `save`, or of a stage, into ``model``, which gets its masks too.

    Raises:
        UserError: the file is missing, damaged, or of another network. Nothing is loaded then.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} is missing: pass a file that save wrote.")
    saved = checkpoint.load(Path(path))
    there, here = (
        {name: value.shape for name, value in state.items()}
        for state in (saved.state, model.state_dict())
    )
    if there != here:
        name = min(name for name, _ in there.items() ^ here.items())
        raise UserError(f"{path} is of another network, as {name!r} shows: build its network.")
    model.load_state_dict(saved.state)
    set_masks(model, saved.masks)


def _checkpoint(model: nn.Module) -> Checkpoint:
    """Return state and masks of ``model`` on the CPU; refuse pruned weights that are not 0."""
    state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    for name, mask in masks(model).items():
        if state[name][~mask].any():
            raise UserError(f"pruned weights of {name!r} are not 0: hold the model to train it.")
    return Checkpoint(state, masks(model), {})


def _candidate(model: nn.Module | Mapping[str, Tensor]) -> Checkpoint:
    """Return the checkpoint of a model; without masks it is pruned where matrices are 0."""
    saved = _checkpoint(model) if isinstance(model, nn.Module) else Checkpoint(model, {}, {})
    kept = {name: value != 0 for name, value in saved.state.items() if value.is_floating_point()}
    zeros = {name: mask for name, mask in kept.items() if mask.ndim > 1 and not mask.all()}
    return Checkpoint(saved.state, saved.masks or zeros, {})
