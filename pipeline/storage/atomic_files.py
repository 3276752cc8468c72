"""Atomic files, which appear whole or not at all, and canonical JSON: equal values, equal bytes."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import UserError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; rename it to ``path`` at the end.

    A reader sees the old file or the whole new one; on an exception the old one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)  # noqa: PTH105 - the documented atomic rename
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` atomically as JSON: sorted keys, indent 2, a newline at the end.

    Raises:
        UserError: ``value`` holds NaN or infinity.
    """
    try:
        text = json.dumps(value, sort_keys=True, indent=2, allow_nan=False)
    except ValueError as error:
        raise UserError(
            f"{path} would hold NaN or infinity because training diverged: lower the learning rate."
        ) from error
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read the JSON file ``path``.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: run `dvc repro` to make it.") from error
    except (OSError, ValueError, RecursionError) as error:  # a folder, other text, deep nesting
        raise UserError(
            f"{path} is not valid JSON: delete it and run `dvc repro` to make it again."
        ) from error
