"""Pruning rules by name: criteria and allocations, as params.yaml names them.

To add one, write one file with the function of its folder, and a test.

    criteria/NAME.py     scores(weights) -> scores; the smallest are pruned first
    allocations/NAME.py  masks(scores, sparsity, alive) -> masks, which set each layer's sparsity

`criterion` and `allocation` return these functions. Those of a file of the user's get copies of
the weights and masks, and the masks that they return are checked: a wrong mask would prune other
weights than the report says.

An allocation that draws at random also takes a ``seed`` and is listed in `SEEDED`. One that weighs
what a layer's weights cost also takes ``costs``, by name, which its module's function
``layer_costs(model, example)`` returns; it is listed in `COSTED`, with the file that it reads.
"""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline import registry
from pipeline.code_files import is_path
from pipeline.errors import UserError
from pipeline.rounding import round_fraction

if TYPE_CHECKING:  # the planner reads this file too, and has no other use for torch
    from collections.abc import Callable

    from torch import Tensor, nn

    Masks = dict[str, Tensor]
    Criterion = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
    Allocation = Callable[[Mapping[str, Tensor], float, Mapping[str, Tensor]], Masks]

SINGULAR = {"criteria": "criterion", "allocations": "allocation"}
SEEDED = ("random",)
COSTED = {"latency": "pipeline/inference/costs.csv"}


def names(folder: str) -> list[str]:
    """Return the names in ``folder`` ("criteria" or "allocations"), sorted."""
    return registry.names(f"prune/{folder}")


def module_name(folder: str, name: str) -> str:
    """Return the dotted module of the rule ``name``, without importing it.

    Raises:
        UserError: the folder has no such file.
    """
    return registry.module_name(f"prune/{folder}", name, f"prune.{SINGULAR[folder]}")


def load(folder: str, name: str) -> Any:
    """Return the module of the rule ``name``, imported."""
    return registry.load(f"prune/{folder}", name, f"prune.{SINGULAR[folder]}")


def is_random(name: str) -> bool:
    """Return whether the allocation ``name`` draws at random; in a file, if it takes a seed."""
    if not is_path(name):
        return name in SEEDED
    arguments = registry.arguments("prune/allocations", name, "prune.allocation")
    if arguments is None:
        return False
    return "seed" in {argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)}


def criterion(name: str) -> "Criterion":
    """Return the function of the criterion ``name``.

    Raises:
        UserError: the criterion does not exist.
    """
    scores: Criterion = load("criteria", name).scores
    return (lambda weights: scores(_copies(weights))) if is_path(name) else scores


def allocation(
    name: str,
    seed: int | None = None,
    model: "nn.Module | None" = None,
    example: "Tensor | None" = None,
) -> "Allocation":
    """Return the function of the allocation ``name``, with its seed or its costs bound.

    Raises:
        UserError: the allocation does not exist, draws at random and ``seed`` is missing, or weighs
            costs and ``model`` or ``example``, one input of it, is missing. That of a file raises
            it too, where the masks do not fit (`_check_masks`).
    """
    module = load("allocations", name)
    if is_path(name):
        module.masks = partial(_checked, module.masks, name)
    if is_random(name):
        if seed is None:
            raise UserError(f"the allocation {name} draws at random: give it a seed (--seed).")
        return partial(module.masks, seed=seed)
    if name in COSTED:
        if model is None or example is None:
            raise UserError(
                f"the allocation {name} needs the size of the images: give it the prepared data "
                "(--data), or an example of one image."
            )
        return partial(module.masks, costs=module.layer_costs(model, example))
    masks: Allocation = module.masks
    return masks


def _checked(
    function: "Callable[..., Masks]",
    name: str,
    scores: "Mapping[str, Tensor]",
    sparsity: float,
    alive: "Mapping[str, Tensor]",
    **seed: int,
) -> "Masks":
    """Return the masks of the user's ``function``, checked, in the order of the weights."""
    masks = function(scores, sparsity, _copies(alive), **seed)
    _check_masks(masks, name, sparsity, alive)
    return {weight: masks[weight] for weight in alive}


def _check_masks(masks: Any, name: str, sparsity: float, alive: "Mapping[str, Tensor]") -> None:
    """Refuse masks of the allocation ``name`` that are none of these weights at this sparsity.

    Every mask is bool, has the weight's shape and keeps no weight that is pruned already. Of all n
    weights floor(s * n + 1/2) are pruned, or as many as rounding in each layer gives: the
    difference is at most the number of layers.
    """
    if not isinstance(masks, Mapping) or masks.keys() != alive.keys():
        raise UserError(
            f"the allocation {name} returns {described(masks)}: it must return a dict of the mask "
            "of each weight, by the names of the scores."
        )
    for weight, known in alive.items():
        mask = masks[weight]
        if not isinstance(mask, type(known)) or (mask.dtype, mask.shape, mask.device) != (
            known.dtype,
            known.shape,
            known.device,
        ):
            raise UserError(
                f"the allocation {name} gives {weight!r} no mask: it must be a bool tensor of the "
                f"shape {list(known.shape)}, True where a weight is kept."
            )
        if (mask & ~known).any():
            raise UserError(
                f"the allocation {name} keeps weights of {weight!r} that are pruned already: its "
                "masks must be False where those of its argument alive are."
            )
    total = sum(known.numel() for known in alive.values())
    pruned = total - sum(int(mask.count_nonzero()) for mask in masks.values())
    asked = round_fraction(sparsity, total)
    if abs(pruned - asked) > len(alive):
        raise UserError(
            f"the allocation {name} prunes {pruned:,} of {total:,} weights, but a sparsity of "
            f"{sparsity:g} is {asked:,}: it must prune as many, but for rounding in each layer."
        )


def described(value: Any) -> str:
    """Return what a wrong result of the user's function is: its type, or a dict's names."""
    if not isinstance(value, Mapping):
        return type(value).__name__
    names = ", ".join(map(repr, value)) or "no name"
    return f"a dict with {names if len(names) < 200 else f'{names[:200]} ...'}"


def _copies(tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Return copies, which the user's function may change in place."""
    return {name: tensor.clone() for name, tensor in tensors.items()}
