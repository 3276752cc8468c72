"""Optional packages, which only some tasks need: imported when used."""

from importlib import import_module
from typing import Any

from pipeline.errors import UserError


def extra(module: str, of: str) -> Any:
    """Return ``module``, of the optional dependencies ``of`` in pyproject.toml.

    Raises:
        UserError: it cannot be imported; the message says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(
            f"{module} cannot be imported ({error}): install it with pip install -e '.[{of}]'"
        ) from None
