"""Reads stages/dvc.yaml and its lock file as DVC does, several times as fast.

DVC's parser resolves each of their words in Python. Here libyaml does the parsing and DVC's own
schemas check the result; whatever they refuse is left to DVC, which has the error messages.
"""

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from dvc.dvcfile import load_file  # type: ignore[import-untyped]
from dvc.exceptions import DvcException  # type: ignore[import-untyped]

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_BASE):  # type: ignore[misc]
    """YAML 1.2, as DVC reads it: `on` is a word and 1e-4 a number."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's way


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first)
    )


@contextmanager
def no_collection() -> Iterator[None]:
    """Spare Python's garbage collector hundreds of thousands of objects, none of them garbage."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def load_stages(repo: Any, path: Path) -> list[Any]:
    """Return the stages of the dvc.yaml at ``path``, with what its lock file records of them.

    Raises:
        DvcException: one of the two files is damaged.
    """
    file = load_file(repo, str(path))
    for name, part in (("contents", file), ("lockfile_contents", file._lockfile)):
        content = _quick(part)
        if content is not None:
            file.__dict__[name] = content  # where its cached property keeps it
    loader = file.stages
    return [loader[name] for name in loader]


def _quick(file: Any) -> dict[str, Any] | None:
    """Return what a file holds, or None where it is absent, damaged or empty."""
    try:
        content = yaml.load(Path(file.path).read_bytes(), Loader=_Loader)  # noqa: S506 - a safe one
        file.validate(content)
    except (OSError, ValueError, yaml.YAMLError, DvcException):
        return None
    return content if isinstance(content, dict) else None
