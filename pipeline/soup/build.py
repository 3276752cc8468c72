"""Finding a merge rule by the name a user writes in params.yaml, and what it has to be given.

To add a rule, write one file with a function

    merge(candidates, *, ...) -> Soup

whose keyword arguments name what it needs beside the candidates. pipeline/stagekit/merge_inputs.py
says what there is; nothing is read or computed that no rule asks for.
"""

import ast
import importlib
from types import ModuleType

from pipeline import registry


def names() -> list[str]:
    """Return the names of all rules, sorted."""
    return registry.names("soup")


def module_name(name: str) -> str:
    """Return the dotted module behind ``name``, without importing it.

    Raises:
        UserError: there is no such rule.
    """
    return registry.module_name("soup", name, "merge")


def asks(name: str) -> list[str]:
    """Return what a rule's ``merge`` must be given, read off its file: planning needs no torch."""
    for node in _parsed(name).body:
        if isinstance(node, ast.FunctionDef) and node.name == "merge":
            return [argument.arg for argument in node.args.kwonlyargs]
    raise AssertionError(f"{module_name(name)} has no function merge")


def about() -> dict[str, str]:
    """Return the first line of what each rule is, by name."""
    return {name: (ast.get_docstring(_parsed(name)) or "").partition("\n")[0] for name in names()}


def load(name: str) -> ModuleType:
    """Import the module behind ``name``."""
    return importlib.import_module(module_name(name))


def _parsed(name: str) -> ast.Module:
    file = registry.ROOT / "soup" / f"{module_name(name).rpartition('.')[2]}.py"
    return ast.parse(file.read_text(encoding="utf-8"))
