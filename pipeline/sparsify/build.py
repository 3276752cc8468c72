"""Finding a method that prunes during training by its name: ``gmp`` is pipeline/sparsify/gmp.py.

To add one, write one file with ``build(goal) -> Sparsifier``, and its test.
"""

from typing import cast

from pipeline import registry
from pipeline.errors import UserError
from pipeline.sparsify.base import Sparsifier, SparsifyConfig


def names() -> list[str]:
    """Return the methods of this room, sorted."""
    return registry.names("sparsify")


def build(method: str, goal: SparsifyConfig) -> Sparsifier:
    """Return the hook of ``method`` for ``goal``.

    Raises:
        UserError: no such method, or a sparsity that is out of its range.
    """
    if not 0 <= goal.sparsity < 1:
        raise UserError(f"the sparsity is {goal.sparsity}: give a fraction from 0 up to 1.")
    module = registry.load("sparsify", method, "the method")
    return cast("Sparsifier", module.build(goal))
