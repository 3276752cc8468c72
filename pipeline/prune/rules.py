"""Finding a criterion or an allocation by the name a user writes in params.yaml.

The name is the module's: ``magnitude`` is criteria/magnitude.py. A name that Python reserves takes
an underscore, as PEP 8 has it: ``global`` is allocations/global_.py. To add one, write one file
with the room's function, and its test; nothing else changes.

    criteria/NAME.py     scores(weights) -> scores: what is smallest is pruned first
    allocations/NAME.py  masks(scores, sparsity, alive) -> masks: how many each layer loses

An allocation that draws at random takes a ``seed`` as well, and stands in `SEEDED`.
"""

import importlib
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

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
    files = (Path(__file__).parent / room).glob("[!_]*.py")
    return sorted(file.stem.removesuffix("_") for file in files)


def module_name(room: str, name: str) -> str:
    """Return the dotted module behind ``name``, without importing it.

    Raises:
        UserError: no such file in the room.
    """
    if name not in names(room):
        allowed = ", ".join(names(room))
        raise UserError(f"prune.{SINGULAR[room]} is {name!r}: use one of {allowed}.")
    here = Path(__file__).parent / room / f"{name}.py"
    return f"pipeline.prune.{room}.{name if here.exists() else name + '_'}"


def load(room: str, name: str) -> ModuleType:
    """Import the module behind ``name``."""
    return importlib.import_module(module_name(room, name))


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
