"""Finding a method that prunes during training by its name: ``gmp`` is pipeline/sparsify/gmp.py.

To add one, write one file with ``build(goal) -> Sparsifier``, and its test.
"""

import importlib
from pathlib import Path
from typing import cast

from pipeline.errors import UserError
from pipeline.sparsify.base import Goal, Sparsifier


def names() -> list[str]:
    """Return the methods of this room, sorted."""
    files = Path(__file__).parent.glob("[!_]*.py")
    return sorted({file.stem for file in files} - {"base", "build"})


def build(method: str, goal: Goal) -> Sparsifier:
    """Return the hook of ``method`` for ``goal``.

    Raises:
        UserError: no such method, or a sparsity that is out of its range.
    """
    if method not in names():
        raise UserError(f"the method is {method!r}: use one of {', '.join(names())}.")
    if not 0 <= goal.sparsity < 1:
        raise UserError(f"the sparsity is {goal.sparsity}: give a fraction from 0 up to 1.")
    module = importlib.import_module(f"pipeline.sparsify.{method}")
    return cast("Sparsifier", module.build(goal))
