"""Finding a method that prunes during training by its name: ``gmp`` is pipeline/sparsify/gmp.py.

To add one, write one file with ``build(task) -> Sparsifier``, and its test.
"""

import importlib
from pathlib import Path
from typing import cast

from pipeline.errors import UserError
from pipeline.sparsify.base import Sparsifier, Task


def names() -> list[str]:
    """Return the methods of this room, sorted."""
    files = Path(__file__).parent.glob("[!_]*.py")
    return sorted({file.stem for file in files} - {"base", "build"})


def build(method: str, task: Task) -> Sparsifier:
    """Return the hook of ``method`` for ``task``.

    Raises:
        UserError: no such method, or a sparsity that is out of its range.
    """
    if method not in names():
        raise UserError(f"the method is {method!r}: use one of {', '.join(names())}.")
    if not 0 <= task.sparsity < 1:
        raise UserError(f"the sparsity is {task.sparsity}: give a fraction from 0 up to 1.")
    module = importlib.import_module(f"pipeline.sparsify.{method}")
    return cast("Sparsifier", module.build(task))
