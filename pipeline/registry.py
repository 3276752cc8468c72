"""Registry: in some folders each file is a member that the user names in params.yaml.

``magnitude`` is prune/criteria/magnitude.py; a Python keyword takes an underscore, as in PEP 8:
``global`` is global_.py. To add a member, write one file; it need not be registered. Files called
``base``, ``build`` and ``config``, or with a leading underscore, are shared code.

The families of `FUNCTIONS` also have members elsewhere, which are named by a path and a function:
``../mine/taylor.py:scores`` (pipeline/code_files.py).
"""

import ast
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipeline import code_files
from pipeline.errors import UserError

ROOT = Path(__file__).parent
SHARED = {"base", "build", "config"}
FUNCTIONS = {  # of each member, by family
    "data": "read",
    "models": "build",
    "prune/allocations": "masks",
    "prune/criteria": "scores",
    "soup": "merge",
    "tasks": "TASK",
}
LIBRARIES = ("torchvision.", "timm.")  # beginnings of networks' names (pipeline/models/build.py)


def names(folder: str) -> list[str]:
    """Return the sorted names of the members of a ``folder`` of this package ("prune/criteria")."""
    members = {file.stem for file in (ROOT / folder).glob("[!_]*.py")} - SHARED
    return sorted(name.removesuffix("_") for name in members)


def choices(folder: str) -> list[str]:
    """Return the texts that a key of params.yaml takes, patterns such as torchvision.NAME last."""
    libraries = [f"{library}NAME" for library in LIBRARIES] if folder == "models" else []
    paths = [f"a path FILE.py:{FUNCTIONS[folder]}"] if folder in FUNCTIONS else []
    return [*names(folder), *libraries, *paths]


def module_name(folder: str, name: str, key: str) -> str:
    """Return the dotted name of the module of ``name``, or its file, without importing it.

    Raises:
        UserError: there is no such member; the message names the ``key`` of params.yaml.
    """
    if folder in FUNCTIONS and code_files.is_path(name):
        return split(folder, name)[0]
    if name not in names(folder):
        raise UserError(f"{key} is {name!r}: use one of {', '.join(choices(folder))}.")
    stem = name if (ROOT / folder / f"{name}.py").exists() else f"{name}_"
    return ".".join(["pipeline", *folder.split("/"), stem])


def split(folder: str, name: str) -> tuple[str, str]:
    """Return the file and the function that a path names; the function's usual name by default."""
    file, _, function = name.partition(".py:")
    return (f"{file}.py", function) if function else (name, FUNCTIONS[folder])


def label(folder: str, name: str) -> str:
    """Return ``name`` for names of stages and for readers: ``taylor`` for mine/taylor.py:scores."""
    if not code_files.is_path(name):
        return name
    file, function = split(folder, name)
    stem = Path(file).stem.replace("-", "_")
    return stem if function == FUNCTIONS[folder] else f"{stem}_{function}"


def load(folder: str, name: str, key: str) -> Any:
    """Return the module of ``name``, imported; one in which its function has the usual name.

    What a function of the user's raises becomes a `UserError` (`code_files.reported`).

    Raises:
        UserError: there is no such member, or this process may not execute its file.
    """
    module = module_name(folder, name, key)
    if not module.endswith(".py"):
        return import_module(module)
    function, content = split(folder, name)[1], vars(code_files.execute(module))
    if function not in content:
        raise UserError(f"{key} is {name!r}, but {module} has no {function}: name one that it has")
    member = content[function]
    if folder != "tasks":  # whose member is an object
        if not callable(member):
            raise UserError(f"{key} is {name!r}, which is no function: name one")
        member = code_files.reported(member, name)
    return SimpleNamespace(**content | {FUNCTIONS[folder]: member})


def parsed(folder: str, name: str, key: str) -> ast.Module:
    """Return the syntax tree of the member ``name``, which is not imported: torch takes seconds.

    Raises:
        UserError: there is no such member, or its file is not valid Python.
    """
    module = module_name(folder, name, key)
    if module.endswith(".py"):
        return code_files.parse(code_files.locate(module))
    return code_files.parse(ROOT.parent.joinpath(*module.split(".")).with_suffix(".py"))


def definition(folder: str, name: str, key: str) -> ast.stmt | None:
    """Return the statement that defines the function of the member ``name``; None without one."""
    function = split(folder, name)[1] if code_files.is_path(name) else FUNCTIONS[folder]
    return code_files.definitions(parsed(folder, name, key)).get(function)


def arguments(folder: str, name: str, key: str) -> ast.arguments | None:
    """Return the arguments of the member's function; None where it is not a plain ``def``."""
    node = definition(folder, name, key)
    return node.args if isinstance(node, ast.FunctionDef) else None
