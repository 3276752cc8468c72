"""Compiled inference of convolutional classifiers on the CPU, fast for unstructured sparsity.

The functions are imported when they are used, so that a stage which reads only the table of costs
does not depend on them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.inference.compiled import compile, load, save  # noqa: A004
    from pipeline.inference.network import SparseNetwork

__all__ = ["SparseNetwork", "compile", "load", "save"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("pipeline.inference.compiled"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
