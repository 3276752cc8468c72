"""Methods of pruning during training by name: ``gmp`` is pipeline/sparsify/gmp.py.

To add one, write one file with ``build(config) -> Sparsifier``, and a test.
"""

from typing import cast

from pipeline import registry
from pipeline.errors import UserError
from pipeline.sparsify.base import Sparsifier, SparsifyConfig


def names() -> list[str]:
    """Return the names of all methods, sorted."""
    return registry.names("sparsify")


def build(method: str, config: SparsifyConfig) -> Sparsifier:
    """Return the hook of ``method`` with ``config``.

    Raises:
        UserError: the method does not exist, or the sparsity is out of range.
    """
    if not 0 <= config.sparsity < 1:
        raise UserError(f"the sparsity is {config.sparsity}: it must be in [0, 1).")
    module = registry.load("sparsify", method, "the method")
    return cast("Sparsifier", module.build(config))
