"""Checks of keys and values; a refusal is one sentence with the key and what is allowed."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.config.schema import Section
from pipeline.errors import UserError

# Keys that earlier versions had, and their names of today.
RENAMED = {"during": "sparsify"} | {
    f"{section}.{old}": f"sparsify.{new}"
    for section in ("during", "sparsify")
    for old, new in {
        "copies_from": "sms_start",
        "refresh": "mask_interval",
        "penalty": "lc_mu0",
        "alpha": "dst_alpha",
        "initial": "str_init",
    }.items()
}

# What must be true, by the kind of pydantic's error; {0} is the value.
_NEEDS = {
    "bool_type": "true or false",
    "dict_type": "a group of keys",
    "float_type": "a number",
    "int_type": "an integer",
    "list_type": "a list, such as [{0}]",
    "model_type": "a group of keys",
    "string_type": "text",
    "too_short": "a list with at least 1 entry",
}


def refuse_renamed(keys: Iterable[str], source: str) -> None:
    """Refuse those of the dotted ``keys`` that have another name today.

    Raises:
        UserError: naming ``source``, the old keys and the new ones.
    """
    old = [key for key in keys if key in RENAMED]
    if old:
        pairs = ", ".join(f"{key} is now {RENAMED[key]}" for key in old)
        raise UserError(f"{source}: {pairs}: rename {'it' if len(old) == 1 else 'them'}")


def refuse_unknown(
    values: dict[str, Any], section: type[Section], source: str, prefix: str = ""
) -> None:
    """Refuse keys that ``section`` does not have, also where they are null.

    Raises:
        UserError: naming ``source``, the key, and the keys that exist.
    """
    for key, value in values.items():
        field = section.model_fields.get(key)
        if key == "seed" and not prefix:
            continue
        if field is None:
            known = ", ".join([*section.model_fields, *([] if prefix else ["seed"])])
            raise UserError(
                f"{source}: the key {prefix}{key} is unknown: use one of {known}"
                f"{_near(str(key), prefix, section)}"
            )
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section) and value is not None:
            if not isinstance(value, dict):
                raise UserError(
                    f"{source}: {prefix}{key} is {value!r}, but must be a group of keys, such as "
                    f"{next(iter(inner.model_fields))}"
                )
            refuse_unknown(value, inner, source, f"{prefix}{key}.")


def refuse_lengths(values: dict[str, Any], budget: int | None, source: str) -> None:
    """Refuse lengths of training among ``values`` that the ``budget`` decides.

    Raises:
        UserError: naming ``source`` and both keys.
    """
    for section in ("retrain", "sparsify"):
        epochs = (values.get(section) or {}).get("epochs")
        if budget is not None and epochs is not None:
            raise UserError(
                f"{source}: {section}.epochs is {epochs}, but budget is {budget} and decides the "
                "length of every training after the dense network's: leave one of them null"
            )


def dotted(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the keys of ``values`` and of the groups in it, as in ``retrain.epochs``."""
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{key}.")


def check_choice(
    key: str, value: object, known: list[str], listed: list[str] | None = None
) -> None:
    """Refuse a ``value`` of ``key`` that is none of ``known``; ``listed`` is known in words."""
    if value not in known:
        hint = _did_you_mean(get_close_matches(str(value), known, 1))
        words = ", ".join(listed or known)
        raise UserError(f"{key} is {value!r}, but must be one of {words}{hint}")


def check_distinct(key: str, values: list[Any]) -> None:
    """Refuse ``values`` of ``key`` of which two are equal."""
    if len(set(values)) < len(values):
        raise UserError(f"{key} is {values}, but must name each only once")


def sentence(
    error: ValidationError,
    model: type[BaseModel],
    values: dict[str, Any],
    sources: tuple[str, str],
    prefix: str = "",
) -> str:
    """Return the first of pydantic's errors as one sentence: source, key, value, what is allowed.

    Args:
        error: what validating ``model`` raised.
        model: the class whose fields the keys are.
        values: those of the file on top.
        sources: names of the file on top, and of the one that has the other values.
        prefix: what comes before the keys of ``values`` in that file.
    """
    first = error.errors()[0]
    path = [part for part in first["loc"] if part != "[key]"]
    key = prefix + ".".join(map(str, path))
    if first["type"] == "missing":
        return f"{sources[0]}: {key} has no value, neither here nor in {sources[1]}: give it one"
    here: Any = values
    for part in path:
        here = here.get(part) if isinstance(here, dict) else here
    source = sources[0] if here is not None else sources[1]
    if first["loc"][-1] == "[key]":
        return f"{source}: the key {key} is unknown: use {_need(first, model, path)}"
    return f"{source}: {key} is {first['input']!r}, but must be {_need(first, model, path)}"


def _need(error: ErrorDetails, model: type[BaseModel], path: list[str | int]) -> str:
    """Return what must be true of the value at ``path``, as in "in [0, 1)"."""
    if error["type"] in _NEEDS:
        return _NEEDS[error["type"]].format(error["input"])
    if error["type"].startswith(("greater_than", "less_than")):
        schema = _schema_of(model, path)
        about = f", {schema['description']}" if "description" in schema else ""
        return _interval(schema) + about
    return error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")


def _schema_of(model: type[BaseModel], path: list[str | int]) -> dict[str, Any]:
    """Return the JSON schema of the value at ``path``."""
    root = model.model_json_schema()

    def resolved(node: dict[str, Any]) -> dict[str, Any]:
        node = next((each for each in node.get("anyOf", ()) if each.get("type") != "null"), node)
        return root["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node

    node = root
    for part in path:
        keys = node.get("properties", {})
        node = resolved(
            node["items"]
            if isinstance(part, int)
            else keys[part]
            if part in keys
            else node["additionalProperties"]
        )
    return node


def _interval(schema: dict[str, Any]) -> str:
    """Return the bounds of a number in words, or as an interval where it has two."""
    low, open_low = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, open_high = schema.get("maximum"), schema.get("exclusiveMaximum")
    left = f"({open_low}" if low is None else f"[{low}"
    right = f"{open_high})" if high is None else f"{high}]"
    if (high, open_high) == (None, None):
        return f"greater than {open_low}" if low is None else f"at least {low}"
    if (low, open_low) == (None, None):
        return f"less than {open_high}" if high is None else f"at most {high}"
    return f"in {left}, {right}"


def _near(key: str, prefix: str, section: type[BaseModel]) -> str:
    """Return a question with the keys that may be meant: in a group of keys, or spelt alike."""
    groups = [
        f"{group}.{key}"
        for group, field in section.model_fields.items()
        if isinstance(field.annotation, type)
        and issubclass(field.annotation, Section)
        and key in field.annotation.model_fields
    ]
    alike = get_close_matches(key, [*section.model_fields], 1)
    return _did_you_mean(groups or [f"{prefix}{name}" for name in alike])


def _did_you_mean(names: list[str]) -> str:
    return f" (did you mean {' or '.join(names)}?)" if names else ""
