"""YAML files as people mean them: a key that stands twice is an error, and 1e-4 is a number."""

import re
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import UserError


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; this loader refuses them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise UserError(
                    f"{self.name}: the key {key} stands twice (line "
                    f"{key_node.start_mark.line + 1}): keep one of them"
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 takes 1e-4 for a word, everybody else for a number.
_UniqueKeys.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read(path: Path) -> dict[str, Any]:
    """Return the keys that the YAML file at ``path`` holds.

    Raises:
        UserError: the file is missing or no YAML, holds no keys, or one key twice.
    """
    try:
        with path.open(encoding="utf-8") as file:
            content = yaml.load(file, Loader=_UniqueKeys)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run from the project's folder") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no keys: it must be a mapping such as 'recipe: digits'")
    return content
