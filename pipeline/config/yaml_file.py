"""YAML 1.2 as DVC reads it, by libyaml; a key that stands twice is an error.

PyYAML alone reads YAML 1.1, where ``on`` is true, 012 is 10 and 1e-4 is a word, and keeps the last
of two equal keys. ruamel.yaml does neither, but its import takes 0.1 s, a third of all imports of
a run that has nothing to do.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import UserError

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Loader(_BASE):  # type: ignore[misc]
    """The types of YAML 1.2's core schema, with decimal integers only."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's way


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first)
    )


Loader.add_constructor(  # 012 is 12, and not octal
    "tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node))
)


class _UniqueKeys(Loader):
    """Refuses a mapping with two equal keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key_node, _ in node.value:
            key = str(self.construct_object(key_node, deep=True))
            if key in keys:
                line = key_node.start_mark.line + 1
                raise UserError(f"the key {key} stands twice (line {line}): keep one of them")
            keys.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def read(path: Path, name: str) -> dict[str, Any]:
    """Return the keys that the YAML file at ``path`` holds; errors call it ``name``.

    Raises:
        UserError: the file is missing or no YAML, holds no keys, or one key twice.
    """
    try:
        content = yaml.load(path.read_bytes(), Loader=_UniqueKeys)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run from the project's folder") from None
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{name} is not valid YAML{_reason(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{name} holds no keys: it must be a mapping such as 'recipe: digits'")
    return content


def _reason(error: yaml.YAMLError) -> str:
    """Return what libyaml says, and the line; an entry that is not closed shows one line later."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f": {' '.join(str(error).split())}"
    line, before = error.problem_mark.line + 1, error.context_mark
    begun = f", in the entry that begins at line {before.line + 1}" if before else ""
    return f" at line {line}: {error.problem}{begun}"
