"""Merge rules by name: ``greedy`` in params.yaml is pipeline/soup/greedy.py.

To add a rule, write one file with a function

    merge(candidates, *, ...) -> Soup

whose keyword arguments name its further inputs. pipeline/stagekit/merge_inputs.py lists the inputs
that exist; an input is read or computed only if the rule names it.
"""

import ast
import importlib
from types import ModuleType

from pipeline import registry


def names() -> list[str]:
    """Return the names of all rules, sorted."""
    return registry.names("soup")


def module_name(name: str) -> str:
    """Return the dotted module of the rule ``name``, without importing it.

    Raises:
        UserError: there is no such rule.
    """
    return registry.module_name("soup", name, "merge")


def required_inputs(name: str) -> list[str]:
    """Return the keyword arguments of a rule's ``merge``, read without importing torch."""
    for node in _parsed(name).body:
        if isinstance(node, ast.FunctionDef) and node.name == "merge":
            return [argument.arg for argument in node.args.kwonlyargs]
    raise AssertionError(f"{module_name(name)} has no function merge")


def descriptions() -> dict[str, str]:
    """Return the first docstring line of every rule, by name."""
    return {name: (ast.get_docstring(_parsed(name)) or "").partition("\n")[0] for name in names()}


def load(name: str) -> ModuleType:
    """Import the module of the rule ``name``."""
    return importlib.import_module(module_name(name))


def _parsed(name: str) -> ast.Module:
    file = registry.ROOT / "soup" / f"{module_name(name).rpartition('.')[2]}.py"
    return ast.parse(file.read_text(encoding="utf-8"))
