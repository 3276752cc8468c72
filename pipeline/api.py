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
from collections.abc import Iterable, Mapping
from math import fsum
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from pipeline import code_files, registry
from pipeline.averaging import check, weighted_sum
from pipeline.errors import UserError
from pipeline.prune.network import prune_network
from pipeline.prune.prunable import prunable
from pipeline.schedules.lr_scheduler import RetrainLR
from pipeline.soup import uniform
from pipeline.storage import checkpoint
from pipeline.train.loader_inputs import inputs_on, run, size
from pipeline.train.network_masks import (
    check_masks,
    check_values,
    hold,
    masks,
    parameters,
    release,
    set_masks,
)
from pipeline.train.network_state import candidate, checkpoint_of, tensors
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

    Weights that an earlier call pruned stay pruned. Where masks are held, the new ones are held. A
    criterion or an allocation may also be the path of a Python file, which is executed.

    Raises:
        UserError: a wrong argument, nothing to prune, FSDP, a weight that is not finite, or a mask
            of a layer that was replaced. The network is unchanged then.
    """
    names, parent = _prunable(model), checkpoint_of(model)
    pruned, metrics = prune_network(
        parent,
        model,
        sparsity,
        structure=structure,
        criterion=_rule("criteria", criterion),
        allocation=_rule("allocations", allocation),
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
    weights = [model.get_parameter(name) for name in _prunable(model)]
    total = sum(weight.numel() for weight in weights)
    return sum(int((weight == 0).sum()) for weight in weights) / total if total else 0.0


def average(models: Iterable[Model], weights: Iterable[float] | None = None) -> Model:
    """Return the soup sum_i w_i theta_i of networks, or of state dicts, that share their masks.

    It has these masks. Its BatchNorm statistics are to be re-estimated (`reestimate_batchnorm`).

    Arguments: models, left unchanged; a state dict is pruned where its matrices and kernels are 0.
    weights, w_i, with a sum of 1; by default all 1 / m (UniformSoup).
    Raises: UserError for other keys, shapes, dtypes or masks than the first's, for a state that is
    not finite, and for weights that do not fit.
    """
    models = list(models)
    if len({isinstance(model, nn.Module) for model in models}) > 1:
        raise UserError("networks and state dicts are mixed: pass models of one kind.")
    candidates = [candidate(number, model) for number, model in enumerate(models)]
    check(candidates)
    if weights is None:
        state = uniform.merge(candidates).checkpoint.state
    else:
        shares = _shares(weights, len(models))
        state = weighted_sum([each.state for each in candidates], shares)
    if not isinstance(models[0], nn.Module):
        return state
    soup = copy.deepcopy(models[0])
    soup.load_state_dict(state)
    return soup


def reestimate_batchnorm(model: nn.Module, batches: Iterable[Any]) -> None:
    """Replace the running statistics of ``model`` by averages over ``batches`` (`average_over`).

    A batch is an input, a tuple or list that begins with one, or a dict of keyword arguments; its
    tensors are moved to the model's device. Pass training data in random order, augmented as in
    training.

    Raises:
        UserError: no batch, one that the network does not take, or an average that is not finite.
            The statistics are unchanged then.
    """
    check_values(model)
    device = next((each.device for each in model.parameters()), torch.device("cpu"))
    average_over(model, inputs_on(device, batches), size, lambda inputs: run(model, inputs))


def save(model: nn.Module, path: Path | str) -> None:
    """Write state and masks of ``model`` to a sparse checkpoint (safetensors), atomically.

    Raises:
        UserError: the file cannot be written, the state is not finite, or a mask does not fit.
    """
    content = checkpoint_of(model)
    try:
        checkpoint.save(Path(path), content)
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{str(path)!r} cannot be written ({error}): name another file.") from error


def load(model: nn.Module, path: Path | str) -> None:
    """Load a checkpoint of `save`, or of a stage, into ``model``, which gets its masks too.

    Raises:
        UserError: the file is missing, damaged, or of another network. Nothing is loaded then.
    """
    check_values(model)
    if not Path(path).is_file():
        raise UserError(f"{path} is missing: pass a file that save wrote.")
    saved = checkpoint.load(Path(path))
    there, here = (
        {name: value.shape for name, value in state.items()}
        for state in (saved.state, tensors(model))
    )
    if there != here:
        name = min(name for name, _ in there.items() ^ here.items())
        raise UserError(
            f"{path} is of another network, as {name!r} shows: build its network, and pass it "
            "without a wrapper such as torch.compile."
        )
    check_masks(model, saved.masks)
    model.load_state_dict(saved.state)
    set_masks(model, saved.masks)


def _prunable(model: nn.Module) -> list[str]:
    """Return the names of the prunable weights; refuse one that is computed from parameters."""
    known = parameters(model)
    names = prunable(model)
    computed = [name for name in names if name not in known]
    if computed:
        raise UserError(f"{computed[0]!r} has a parametrisation: remove that first.")
    return names


def _rule(folder: str, name: str) -> str:
    """Return the name of a pruning rule; a path as an absolute one, which may be executed."""
    if not isinstance(name, str):
        raise UserError(f"the rule {name!r} is no text: name one, or the path of its file.")
    if not code_files.is_path(name):
        return name
    file, function = registry.split(f"prune/{folder}", name)
    path = str(Path(file).resolve())
    code_files.allow([path])
    return f"{path}:{function}"


def _shares(weights: Iterable[float], count: int) -> list[float]:
    """Return the weights w_i of ``count`` models, whose sum must be 1."""
    try:
        shares = list(weights)
        fits = len(shares) == count and abs(fsum(shares) - 1) <= 1e-6
    except (OverflowError, TypeError, ValueError):
        fits = False
    if not fits:
        raise UserError(f"weights is {weights}: it must have one number a model, with a sum of 1.")
    return shares
