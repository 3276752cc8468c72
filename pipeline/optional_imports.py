"""Packages that only some tasks need: imported when they are, and named when they are missing."""

from importlib import import_module
from typing import Any

from pipeline.errors import UserError


def extra(module: str, of: str) -> Any:
    """Return the installed ``module``, which pyproject.toml lists under the extra ``of``.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(
            f"{module} cannot be imported ({error}): install it with pip install -e '.[{of}]'"
        ) from None
