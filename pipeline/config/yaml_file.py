"""Settings files: YAML 1.2 by ruamel.yaml, as DVC reads it; a key that stands twice is an error."""

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent

from pipeline.errors import UserError

MOST = 1_000_000  # bytes of a file, and values in it; aliases repeat values
DEPTH = 50  # lists and groups in each other; the parser's stack holds some thousand


def read(path: Path, name: str) -> dict[str, Any]:
    """Return the keys that the YAML file at ``path`` holds; errors call it ``name``.

    Raises:
        UserError: the file is missing, too large or no YAML, holds no keys, or one key twice.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run from the project's folder") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): correct it") from None
    try:
        values = _values(content, name)
    except DuplicateKeyError as error:
        # found duplicate key "m" with value "5" ...
        key = re.sub(
            r'^found duplicate key "(.*)" with value .*$', r"\1", error.problem, flags=re.S
        )
        line = error.problem_mark.line + 1
        raise UserError(f"{name}: the key {key} stands twice (line {line}): keep one") from None
    except YAMLError as error:
        raise UserError(f"{name} is not valid YAML{_reason(error)}") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # of a value that is no date, or not of its tag, as in "!!float x"
        raise UserError(
            f"{name} has a value that YAML cannot read ({error}): quote dates, tags and long "
            "numbers"
        ) from None
    if not isinstance(values, dict):
        raise UserError(f"{name} holds no keys: it must be a mapping such as 'recipe: digits'")
    return values


def _values(content: bytes, name: str) -> Any:
    """Return the parsed ``content``, if its size and nesting are those of settings."""
    if len(content) > MOST:
        raise UserError(
            f"{name} has {len(content)} bytes, but must have at most {MOST}: shorten it"
        )
    depth = 0
    for event in YAML(typ="safe").parse(content):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > DEPTH:
            raise UserError(
                f"{name} has more than {DEPTH} lists or groups in each other at line "
                f"{event.start_mark.line + 1}: close the brackets"
            )
    values = YAML(typ="safe").load(content)
    waiting, count = [values], 0
    while waiting:
        value = waiting.pop()
        count += 1
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += value
        if count + len(waiting) > MOST:
            raise UserError(
                f"{name} has more than {MOST} values, as its aliases (*NAME) repeat them: write "
                "them out"
            )
    return values


def _reason(error: YAMLError) -> str:
    """Return what libyaml says, and the line; an entry that is not closed shows one line later."""
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return f": {' '.join(str(error).split())}"
    line, before = error.problem_mark.line + 1, error.context_mark
    begun = f", in the entry that begins at line {before.line + 1}" if before else ""
    quote = ": quote the value with a colon" if "unexpected ':'" in str(error.problem) else ""
    return f" at line {line}: {error.problem}{begun}{quote}"
