"""Settings files: YAML 1.2 by ruamel.yaml, as DVC reads it; a key that stands twice is an error."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pipeline.errors import UserError


def read(path: Path, name: str) -> dict[str, Any]:
    """Return the keys that the YAML file at ``path`` holds; errors call it ``name``.

    Raises:
        UserError: the file is missing or no YAML, holds no keys, or one key twice.
    """
    try:
        content = YAML(typ="safe").load(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run from the project's folder") from None
    except DuplicateKeyError as error:
        key = error.problem.split('"')[1]  # found duplicate key "m" with value "5" ...
        line = error.problem_mark.line + 1
        raise UserError(f"{name}: the key {key} stands twice (line {line}): keep one") from None
    except YAMLError as error:
        raise UserError(f"{name} is not valid YAML{_reason(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{name} holds no keys: it must be a mapping such as 'recipe: digits'")
    return content


def _reason(error: YAMLError) -> str:
    """Return what libyaml says, and the line; an entry that is not closed shows one line later."""
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return f": {' '.join(str(error).split())}"
    line, before = error.problem_mark.line + 1, error.context_mark
    begun = f", in the entry that begins at line {before.line + 1}" if before else ""
    quote = ": quote the value with a colon" if "unexpected ':'" in str(error.problem) else ""
    return f" at line {line}: {error.problem}{begun}{quote}"
