"""Columns and order of the table of experiments."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UserError
from pipeline.show.dvc_experiments import Row
from pipeline.track.summary import flatten, is_number

LIMIT = 25
FIXED = 5  # experiment, created, state, ran, cached
LAST = ("methods", "merge", "studies")  # lists, of which the score columns say most
REACHED = ("sparsity", "metric")  # unknown before an experiment has ended
ATTRIBUTES: dict[str, Callable[[Row], Any]] = {
    "created": lambda row: row.created,
    "experiment": lambda row: row.name,
}


@dataclass(frozen=True)
class Columns:
    """The settings and methods that have a column, the number to sort by, and those left out."""

    settings: tuple[str, ...]
    methods: tuple[str, ...]
    measure: str | None
    left_out: tuple[str, ...]


def choose(rows: Sequence[Row], sort_by: str = "best") -> Columns:
    """Return the columns of ``rows``, at most `LIMIT` with the five of each table.

    Settings have a column if their values differ between the rows; a missing value equals null.
    The first are those of params.yaml in its order, then those that only some rows have. Methods
    have at least half of the columns if they need them; those with the highest score come first
    where there are too many.
    """
    settings, methods = _differing(rows), _methods(rows)
    sparse = [method for method in methods if method != "dense"]
    measure = None if sort_by in {"best", *ATTRIBUTES, *methods, *_keys(rows)} else sort_by
    room = LIMIT - FIXED - (measure is not None)
    for_settings = min(len(settings), max(room // 2, room - len(methods)))
    ranked = [*sorted(sparse, key=lambda method: -_highest(rows, method)), "dense"]
    kept = ranked[: room - for_settings]
    shown = tuple(method for method in methods if method in kept)
    left_out = (*settings[for_settings:], *(method for method in methods if method not in kept))
    return Columns(tuple(settings[:for_settings]), shown, measure, left_out)


def sort(rows: Sequence[Row], by: str = "best", order: str | None = None) -> list[Row]:
    """Return ``rows`` in the order of ``by``; those without a value come last.

    ``by`` is best (the score of the best sparse method), experiment, created, a method, a setting,
    or a number of metrics.json such as sms_uniform.ood_accuracy. ``order`` is asc or desc; without
    it, scores, numbers of metrics.json and times begin with the highest, all else with the lowest.

    Raises:
        UserError: no row has ``by``.
    """
    value, highest_first = _key(rows, by)
    known = [row for row in rows if value(row) is not None]
    numbers = all(is_number(value(row)) for row in known)
    plain = numbers or by == "created"
    ordered = sorted(
        known,
        key=lambda row: value(row) if plain else str(value(row)),
        reverse=highest_first if order is None else order == "desc",
    )
    return [*ordered, *(row for row in rows if value(row) is None)]


def measured(row: Row, key: str) -> float | None:
    """Return the number of metrics.json with the joined ``key``."""
    number = dict(flatten(row.metrics, ".")).get(key)
    return float(number) if is_number(number) else None


def _key(rows: Sequence[Row], by: str) -> tuple[Callable[[Row], Any], bool]:
    """Return the function that gives the value to sort by, and whether the highest is first."""
    if by == "best":
        return lambda row: row.scores[row.best] if row.best else None, True
    if by in ATTRIBUTES:
        return ATTRIBUTES[by], by == "created"
    if by in _methods(rows):
        return lambda row: row.scores.get(by), True
    if by in _keys(rows):
        return lambda row: row.settings.get(by), False
    if any(measured(row, by) is not None for row in rows):
        return lambda row: measured(row, by), True
    known = ", ".join(["best", *ATTRIBUTES, *_methods(rows), *_differing(rows)])
    raise UserError(
        f"--sort-by {by}: no experiment has it; it must be one of {known}, another setting of "
        "params.yaml, or a number of reports/metrics.json such as sms_uniform.ood_accuracy"
    )


def _keys(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row.settings))


def _differing(rows: Sequence[Row]) -> list[str]:
    def values(key: str) -> set[str]:
        compared = [row for row in rows if key not in REACHED or key in row.settings]
        return {repr(row.settings.get(key)) for row in compared}

    keys = [key for key in _keys(rows) if len(values(key)) > 1]
    return sorted(keys, key=lambda key: key in LAST)


def _methods(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(method for row in rows for method in row.scores))


def _highest(rows: Sequence[Row], method: str) -> float:
    return max(row.scores.get(method, 0.0) for row in rows)
