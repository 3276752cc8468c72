"""Reads stages/dvc.yaml and stages/dvc.lock faster than DVC.

DVC parses YAML in Python. Here libyaml parses, by PyYAML, which takes less than half the time of
ruamel.yaml, and DVC's own schemas check the result; a file that they refuse is left to DVC, which
has the error messages. The entries of the lock file are handled as text, without parsing.
"""

import gc
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import UserError

YOUNG = 100  # stages whose objects the garbage collector visits together
HEADER = "schema: '2.0'\nstages:\n"
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Loader(_BASE):  # type: ignore[misc]
    """The types of YAML 1.2's core schema, with decimal integers only.

    PyYAML's are those of YAML 1.1, where ``on`` is true, 012 is 10 and 1e-4 is a word.
    """

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


@contextmanager
def no_collection() -> Iterator[None]:
    """Pause the garbage collector, which would visit all objects of large files for nothing."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def load_stages(repo: Any, path: Path, text: str | None = None) -> list[Any]:
    """Return the stages of the dvc.yaml at ``path``, with their entries of its lock file.

    Where ``text`` is given, it is read instead of what is in the file, which may be missing.

    Raises:
        DvcException: the file at ``path`` is damaged.
        UserError: its lock file is.
    """
    from dvc.dvcfile import load_file  # type: ignore[import-untyped]  # noqa: PLC0415 - slow
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]  # noqa: PLC0415

    file = load_file(repo, str(path))
    parts = (("contents", file, text), ("lockfile_contents", file._lockfile, None))
    for name, part, given in parts:
        content = _parse(part, given)
        if content is not None:
            file.__dict__[name] = content  # where its cached property keeps it
    stages = []
    try:
        loader = file.stages
        for number, name in enumerate(loader):
            stages.append(loader[name])
            if number % YOUNG == 0:
                gc.collect(0)  # cycles that DVC leaves, 0.4 MB a stage; older ones are not visited
    except DvcException as error:
        if not str(getattr(error, "path", "")).endswith(".lock"):
            raise
        lock = os.path.relpath(file._lockfile.path, repo.root_dir)
        raise UserError(
            f"{lock} is damaged, or has the conflicts of a merge: remove it and run again; "
            "finished stages come from DVC's cache"
        ) from error
    return stages


def _parse(file: Any, text: str | None) -> dict[str, Any] | None:
    """Return the content of a file, or of ``text``; None where it is absent, damaged or empty."""
    from dvc.exceptions import DvcException  # noqa: PLC0415 - slow

    try:
        source = text or Path(file.path).read_bytes()
        content = yaml.load(source, Loader=Loader)  # noqa: S506 - a safe one
        file.validate(content)
    except (OSError, ValueError, yaml.YAMLError, DvcException):
        return None
    return content if isinstance(content, dict) else None


def entries(text: str) -> dict[str, str] | None:
    """Return the text of each stage's entry in a lock file; None where DVC did not write it."""
    head, *parts = re.split(r"^  (\S+):\n", text.removeprefix(HEADER), flags=re.MULTILINE)
    if text and (head or not text.startswith(HEADER)):
        return None
    return {
        name.strip("'\""): f"  {name}:\n{entry}"
        for name, entry in zip(parts[::2], parts[1::2], strict=True)
    }


def outputs(file: Path) -> dict[str, str]:
    """Return the hash of each stage's first output in the lock file ``file``."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    parts = {
        name: entry.partition("\n    outs:\n")[2] for name, entry in (entries(text) or {}).items()
    }
    hashes = {
        name: re.search(r"^      md5: (\S+)$", part, re.MULTILINE) for name, part in parts.items()
    }
    return {name: match[1] for name, match in hashes.items() if match}
