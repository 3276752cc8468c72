"""Families: folders with one file a member, which is found by the name a user writes.

The name is the file's: ``magnitude`` is prune/criteria/magnitude.py. One that Python reserves
takes an underscore, as PEP 8 has it: ``global`` is global_.py. To add a member, write one file;
nothing is registered anywhere. What the members of a folder share is in ``base``, ``build`` and
``config``.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from pipeline.errors import UserError

ROOT = Path(__file__).parent
SHARED = {"base", "build", "config"}


def names(folder: str) -> list[str]:
    """Return the members of a ``folder`` of this package ("prune/criteria"), sorted."""
    members = {file.stem for file in (ROOT / folder).glob("[!_]*.py")} - SHARED
    return sorted(name.removesuffix("_") for name in members)


def module_name(folder: str, name: str, key: str) -> str:
    """Return the dotted module behind ``name``, without importing it.

    Raises:
        UserError: there is no such member; it names the ``key`` that asks for it.
    """
    if name not in names(folder):
        raise UserError(f"{key} is {name!r}: use one of {', '.join(names(folder))}.")
    stem = name if (ROOT / folder / f"{name}.py").exists() else f"{name}_"
    return ".".join(["pipeline", *folder.split("/"), stem])


def load(folder: str, name: str, key: str) -> ModuleType:
    """Import the module behind ``name``."""
    return import_module(module_name(folder, name, key))
