"""Finding a criterion or an allocation by the name a user writes in params.yaml.

To add one, write one file with the room's function, and its test; nothing else changes.

    criteria/NAME.py     scores(weights) -> scores: what is smallest is pruned first
    allocations/NAME.py  masks(scores, sparsity, alive) -> masks: how many each layer loses

An allocation that draws at random takes a ``seed`` as well, and stands in `SEEDED`.
"""

from functools import partial
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from pipeline import registry
from pipeline.errors import UserError

if TYPE_CHECKING:  # the planner reads this file too, and has no other use for torch
    from collections.abc import Callable, Mapping

    from torch import Tensor

    Masks = dict[str, Tensor]
    Allocation = Callable[[Mapping[str, Tensor], float, Mapping[str, Tensor]], Masks]

SINGULAR = {"criteria": "criterion", "allocations": "allocation"}
SEEDED = ("random",)


def names(room: str) -> list[str]:
    """Return the names in ``room`` ("criteria" or "allocations"), sorted."""
    return registry.names(f"prune/{room}")


def module_name(room: str, name: str) -> str:
    """Return the dotted module behind ``name``, without importing it.

    Raises:
        UserError: no such file in the room.
    """
    return registry.module_name(f"prune/{room}", name, f"prune.{SINGULAR[room]}")


def load(room: str, name: str) -> ModuleType:
    """Import the module behind ``name``."""
    return import_module(module_name(room, name))


def allocation(name: str, seed: int | None = None) -> "Allocation":
    """Return the function of the allocation ``name``, its seed filled in.

    Raises:
        UserError: no such allocation, or one that draws at random and has no ``seed``.
    """
    module = load("allocations", name)
    if name in SEEDED:
        if seed is None:
            raise UserError(f"the allocation {name} draws at random: give it a --seed.")
        return partial(module.masks, seed=seed)
    masks: Allocation = module.masks
    return masks
