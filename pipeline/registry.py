"""Registry: in some folders each file is a member that the user names in params.yaml.

``magnitude`` is prune/criteria/magnitude.py; a Python keyword takes an underscore, as in PEP 8:
``global`` is global_.py. To add a member, write one file; it need not be registered. Files called
``base``, ``build`` and ``config``, or with a leading underscore, are shared code.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from pipeline.errors import UserError

ROOT = Path(__file__).parent
SHARED = {"base", "build", "config"}


def names(folder: str) -> list[str]:
    """Return the sorted names of the members of a ``folder`` of this package ("prune/criteria")."""
    members = {file.stem for file in (ROOT / folder).glob("[!_]*.py")} - SHARED
    return sorted(name.removesuffix("_") for name in members)


def module_name(folder: str, name: str, key: str) -> str:
    """Return the dotted name of the module of ``name``, without importing it.

    Raises:
        UserError: there is no such member; the message names the ``key`` of params.yaml.
    """
    if name not in names(folder):
        raise UserError(f"{key} is {name!r}: use one of {', '.join(names(folder))}.")
    stem = name if (ROOT / folder / f"{name}.py").exists() else f"{name}_"
    return ".".join(["pipeline", *folder.split("/"), stem])


def load(folder: str, name: str, key: str) -> ModuleType:
    """Return the module of ``name``, imported."""
    return import_module(module_name(folder, name, key))
