"""Merge rules by name: ``greedy`` in params.yaml is pipeline/soup/greedy.py.

To add a rule, write one file with a function

    merge(candidates, *, ...) -> Soup

whose keyword arguments name its further inputs. pipeline/stagekit/merge_inputs.py lists the inputs
that exist; an input is read or computed only if the rule names it.
"""

import ast
from typing import TYPE_CHECKING, Any

from pipeline import registry
from pipeline.errors import UserError

if TYPE_CHECKING:  # the planner reads this file too, and has no other use for torch
    from collections.abc import Sequence

    from pipeline.soup.base import Soup
    from pipeline.storage.checkpoint import Checkpoint

# The further inputs that a rule may name: attributes of `MergeInputs`.
INPUTS = ("activations", "distillation", "loss", "parameters", "parent", "score", "scores")


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
    """Return the inputs that a rule's function names, read without importing torch."""
    arguments = registry.arguments("soup", name, "merge")
    if arguments is None:
        raise UserError(f"merge is {name!r}, which must be a plain `def` in its file: write one")
    further = [argument.arg for argument in (*arguments.args[1:], *arguments.kwonlyargs)]
    return [argument for argument in further if argument in INPUTS]


def descriptions() -> dict[str, str]:
    """Return the first docstring line of every rule, by name."""
    trees = {name: registry.parsed("soup", name, "merge") for name in names()}
    return {
        name: (ast.get_docstring(tree) or "").partition("\n")[0] for name, tree in trees.items()
    }


def label(name: str) -> str:
    """Return the rule's name in those of stages and methods."""
    return registry.label("soup", name)


def load(name: str) -> Any:
    """Return the module of the rule ``name``, imported."""
    return registry.load("soup", name, "merge")


def merge(name: str, candidates: "Sequence[Checkpoint]", **inputs: Any) -> "Soup":
    """Return the soup of ``candidates`` by the rule ``name``, with the further ``inputs`` it names.

    Raises:
        UserError: the rule fails, or does not return a soup of these candidates (`base.checked`).
    """
    from pipeline.soup.base import checked  # noqa: PLC0415 - imports torch

    return checked(load(name).merge(candidates, **inputs), candidates, name)
