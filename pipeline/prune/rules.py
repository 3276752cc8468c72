"""Pruning rules by name: criteria and allocations, as params.yaml names them.

To add one, write one file with the function of its folder, and a test.

    criteria/NAME.py     scores(weights) -> scores; the smallest are pruned first
    allocations/NAME.py  masks(scores, sparsity, alive) -> masks, which set each layer's sparsity

An allocation that draws at random also takes a ``seed`` and is listed in `SEEDED`. One that weighs
what a layer's weights cost also takes ``costs``, by name, which its module's function
``layer_costs(model, example)`` returns; it is listed in `COSTED`, with the file that it reads.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline import registry
from pipeline.code_files import is_path
from pipeline.errors import UserError

if TYPE_CHECKING:  # the planner reads this file too, and has no other use for torch
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    Masks = dict[str, Tensor]
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


def allocation(
    name: str,
    seed: int | None = None,
    model: "nn.Module | None" = None,
    example: "Tensor | None" = None,
) -> "Allocation":
    """Return the function of the allocation ``name``, with its seed or its costs bound.

    Raises:
        UserError: the allocation does not exist, draws at random and ``seed`` is missing, or weighs
            costs and ``model`` or ``example``, one input of it, is missing.
    """
    module = load("allocations", name)
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
