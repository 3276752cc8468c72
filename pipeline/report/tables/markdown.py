"""Markdown tables, and numbers with their standard deviation."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from pipeline.report.statistics import Spread

NONE = "-"
# Measures of a table: header, and the factor and decimals of its numbers.
Columns = Mapping[str, tuple[str, float, int]]


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], names: int = 1) -> str:
    """Return a table whose first ``names`` columns are text and the others numbers."""
    alignment = [":--" if i < names else "--:" for i in range(len(headers))]
    lines = [headers, alignment, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def number(value: Spread | None, seeds: int, *, scale: float = 100, digits: int = 2) -> str:
    """Return ``mean ± standard deviation`` of a measure times ``scale`` (100: as percent).

    One seed has no deviation. If fewer than ``seeds`` were measured, their number n is added.
    """
    if value is None:
        return NONE
    text = f"{scale * value.mean:,.{digits}f}"
    if value.std is not None and (value.std > 0 or digits > 0):  # equal counts have no deviation
        text += f" ± {scale * value.std:,.{digits}f}"
    return text + _seeds_note(value, seeds)


def column_headers(columns: Columns) -> list[str]:
    """Return the headers of ``columns``."""
    return [header for header, _, _ in columns.values()]


def column_numbers(
    columns: Columns, spread: Callable[[str], Spread | None], seeds: int
) -> list[str]:
    """Return a cell for each measure of ``columns``: its ``spread`` over the seeds."""
    return [
        number(spread(measure), seeds, scale=scale, digits=digits)
        for measure, (_, scale, digits) in columns.items()
    ]


def gain(value: Spread | None, seeds: int) -> str:
    """Return a difference of scores in points with its sign: ``+0.34 ± 0.10``."""
    if value is None:
        return NONE
    text = signed(100 * value.mean)
    if value.std is not None:
        text += f" ± {100 * value.std:.2f}"
    return text + _seeds_note(value, seeds)


def signed(points: float, digits: int = 2) -> str:
    """Return a difference with its sign and, by default, two decimals; ``0.00`` has no sign."""
    text = f"{points:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def not_run(stages: int) -> str:
    """Return the beginning of a sentence that lists ``stages`` stages without current artifacts."""
    return (
        f"{stages} {'stage has' if stages == 1 else 'stages have'} not been run, or not with the "
        "present parameters and code"
    )


def _seeds_note(value: Spread, seeds: int) -> str:
    return f" (n = {value.n})" if value.n != seeds else ""
