"""Checks of keys that name a member of a family: a file of this package, or a path to another.

A file that a path names is parsed and not executed: it must have the function, and the function
must take the family's arguments.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline import code_files, registry
from pipeline.config.validation import check_choice
from pipeline.errors import UserError
from pipeline.soup.build import INPUTS

KEYS = {  # of params.yaml, by family
    "data": "data.name",
    "models": "network.name",
    "prune/allocations": "prune.allocation",
    "prune/criteria": "prune.criterion",
    "soup": "merge",
    "tasks": "task",
}
TAKES = {  # the arguments of a family's function, and the optional ones
    "data": (("root", "size"), ()),
    "models": (("classes", "channels"), ()),
    "prune/allocations": (("scores", "sparsity", "alive"), ("seed",)),
    "prune/criteria": (("weights",), ()),
    "soup": (("candidates",), INPUTS),
}
PLAIN = re.compile(r"[\w ./+,@=-]+")  # characters that mean nothing to DVC and shells
STEM = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")  # names of stages and models


def in_one_form(values: dict[str, Any]) -> dict[str, Any]:
    """Return ``values`` of params.yaml with every path to a member as its file's one path."""
    changed = dict(values)
    for folder, key in KEYS.items():
        section, _, last = key.rpartition(".")
        group = dict(changed[section]) if isinstance(changed.get(section), dict) else {}
        holder = group if section else changed
        value = holder.get(last)
        if isinstance(value, str):
            holder[last] = _one_form(folder, value)
        elif isinstance(value, list):
            holder[last] = [_one_form(folder, each) for each in value]
        if group:
            changed[section] = group
    return changed


def _one_form(folder: str, value: Any) -> Any:
    if not (isinstance(value, str) and code_files.is_path(value)):
        return value
    path, function = registry.split(folder, value)
    file = code_files.locate(path)
    return f"{code_files.path_of(file)}:{function}" if file.is_file() else value


def check(folder: str, value: str, key: str = "") -> None:
    """Refuse a ``value`` of the family's key that names no member, or one that cannot be used.

    Raises:
        UserError: naming the key and what must be true.
    """
    key = key or KEYS[folder]
    if code_files.is_path(value):
        for problem in _problems(folder, value):
            raise UserError(f"{key} is {value!r}, but {problem}")
    elif folder == "models" and value.startswith(registry.LIBRARIES):
        library = value.partition(".")[0]
        if find_spec(library) is None:
            raise UserError(
                f"{key} is {value!r}, but {library} is not installed: install it with "
                f"pip install -e '.[{library}]'"
            )
    else:
        check_choice(key, value, registry.names(folder), registry.choices(folder))


def check_labels(values: Iterable[str], folder: str) -> None:
    """Refuse two ``values`` of a list of members whose stages would have the same names."""
    seen: dict[str, str] = {}
    for value in values:
        other = seen.setdefault(registry.label(folder, value), value)
        if other != value:
            raise UserError(
                f"{KEYS[folder]} names {other} and {value}, which would have the same name "
                f"{registry.label(folder, value)!r} in stages and tables: rename one of the files"
            )


def path_problem(path: str, suffixes: tuple[str, ...]) -> str | None:
    """Return what is wrong with ``path`` as that of a file with one of ``suffixes``, if anything.

    The text continues "KEY is PATH, but".
    """
    file = Path(path)
    if not PLAIN.fullmatch(path):
        wrong = next(letter for letter in path if not PLAIN.fullmatch(letter))
        return f"a path must not have the character {wrong!r}: rename the folder or file"
    if file.suffix not in suffixes:
        return f"the path must end in {' or '.join(suffixes)}"
    if not STEM.fullmatch(file.stem):
        return (
            "the name of the file must begin with a letter and consist of letters, digits, _ and - "
            "(it is part of the names of stages): rename it"
        )
    if not code_files.locate(path).is_file():
        start = "" if file.is_absolute() else f" (relative paths begin at {_project()})"
        return f"there is no such file: put it there, or correct the path{start}"
    return None


def _project() -> Path:
    return code_files.main_checkout().resolve()


def _problems(folder: str, value: str) -> Iterator[str]:
    """Yield what is wrong with a member that is named by a path."""
    path, function = registry.split(folder, value)
    if (problem := path_problem(path, (".py",))) is not None:
        yield f"{problem}; FILE.py:{registry.FUNCTIONS[folder]} names its function"
        return
    name = registry.label(folder, value)
    if name in registry.names(folder):
        yield (
            f"{name} is the name of a file of pipeline/{folder} too, so that results of the two "
            "could not be told apart: rename yours"
        )
    tree = registry.parsed(folder, value, KEYS[folder])
    relative = any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree))
    if relative and "." not in code_files.import_name(code_files.locate(path))[1]:
        yield (
            "it has a relative import, and its folder is no package: write `import helpers` for "
            "helpers.py beside it, or add an __init__.py"
        )
    defined = code_files.definitions(tree)
    if function in defined:
        yield from _argument_problems(folder, function, defined[function])
    elif "*" not in defined:
        functions = [name for name in defined if not isinstance(defined[name], ast.Import)]
        near = get_close_matches(function, functions, 3) or functions[:5]
        hint = f": name one that it has, such as {' or '.join(near)}" if near else ": write one"
        yield f"the file has no {function}{hint}"


def _argument_problems(folder: str, function: str, node: ast.stmt) -> Iterator[str]:
    """Yield what is wrong with the arguments of a function that is defined in the file itself."""
    value = getattr(node, "value", None)
    if isinstance(value, ast.Constant | ast.Dict | ast.List | ast.Tuple):
        kind = "a task" if folder == "tasks" else "a function"
        yield f"{function} must be {kind} and not {ast.unparse(value):.50}: write one"
        return
    if folder == "tasks":
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield f"{function} must be a task and not its class: write `TASK = {function}()`"
        return
    initial = [
        each for each in getattr(node, "body", ())
        if isinstance(node, ast.ClassDef) and getattr(each, "name", "") == "__init__"
    ]  # fmt: skip
    function_node = initial[0] if initial else node
    if not isinstance(function_node, ast.FunctionDef):
        if folder == "soup":
            yield f"{function} must be a plain `def` in this file: its arguments are read from it"
        elif isinstance(node, ast.AsyncFunctionDef):
            yield f"{function} is asynchronous: write a plain `def`"
        return
    if function_node.decorator_list and folder != "soup":
        return
    required, optional = TAKES[folder]
    if not _fits(function_node.args, len(required) + len(initial), optional):
        words = ", ".join([*required, *(["*, ..."] if folder == "soup" else [])])
        more = f", and of {', '.join(optional)} what it needs by keyword" if optional else ""
        yield f"{function} must take ({words}){more}: change its arguments"


def _fits(arguments: ast.arguments, count: int, optional: tuple[str, ...]) -> bool:
    """Return whether a function can be called with ``count`` arguments, and keywords of others."""
    plain = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    needed = plain[: len(plain) - len(arguments.defaults)]
    keywords = {
        argument.arg: default
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    }
    enough = len(plain) >= count or arguments.vararg is not None
    left = set(needed[count:]) | {name for name, default in keywords.items() if default is None}
    return enough and left <= set(optional)
