"""The text of a stage in DVC's files, as DVC writes it.

DVC prints YAML in Python, 10 ms a stage. Stages share most of their dependencies, so the text of
each item of a list is kept.
"""

from collections.abc import Mapping
from functools import lru_cache
from itertools import chain
from typing import Any

from dvc.utils.serialize import dumps_yaml  # type: ignore[import-untyped]

KEPT = 10_000  # items
LONG = 80  # characters of a key


def lock_entry(stage: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the lines of one stage, by its name, in a lock file."""
    ((name, parts),) = stage.items()
    if len(name) > LONG:
        return _lines({"stages": stage}, 0).partition("\n")[2]
    head = _lines({name: 0}, 1).removesuffix(" 0\n")
    return f"{head}\n{text(parts, 2)}"


def text(mapping: Mapping[str, Any], depth: int = 0) -> str:
    """Return the lines of ``mapping`` in a file that has it ``depth`` levels down."""
    return "".join(_entry(key, value, depth) for key, value in mapping.items())


def _entry(key: str, value: Any, depth: int) -> str:
    try:
        items = [_item(depth, *chain.from_iterable(item.items())) for item in value]
    except (AttributeError, TypeError):  # not a list of mappings from text to numbers and text
        return _lines({key: value}, depth)
    if not items:
        return _lines({key: value}, depth)
    return f"{'  ' * depth}{key}:\n{''.join(items)}"


@lru_cache(KEPT, typed=True)  # True is not 1
def _item(depth: int, *words: Any) -> str:
    item = dict(zip(words[::2], words[1::2], strict=True))
    return _lines({"key": [item]}, depth).partition("\n")[2]


def _lines(value: Any, depth: int) -> str:
    """Return the lines of ``value``, whose breaks depend on the depth."""
    for _ in range(depth):
        value = {"key": value}
    lines: str = dumps_yaml(value)
    return lines.split("\n", depth)[depth]
