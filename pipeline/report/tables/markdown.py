"""Pieces of a Markdown page: tables, and numbers with their spread."""

from collections.abc import Iterable, Sequence

from pipeline.report.statistics import Spread

NONE = "-"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], names: int = 1) -> str:
    """Return a table whose first ``names`` columns are text and the others numbers."""
    aligned = [":--" if i < names else "--:" for i in range(len(headers))]
    lines = [headers, aligned, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def number(
    found: Spread | None, seeds: int, *, scale: float = 100, digits: int = 2, unit: str = ""
) -> str:
    """Return ``mean ± standard deviation`` of a measure times ``scale`` (100: as percent).

    One seed has no deviation; where fewer than ``seeds`` were measured, their number is said.
    """
    if found is None:
        return NONE
    text = f"{scale * found.mean:,.{digits}f}"
    if found.std is not None and (found.std > 0 or digits > 0):  # a constant count has no spread
        text += f" ± {scale * found.std:,.{digits}f}"
    return text + unit + (f" (n = {found.n})" if found.n != seeds else "")


def not_run(stages: int) -> str:
    """Say that so many stages have no artifact that is today's."""
    return (
        f"{stages} {'stage has' if stages == 1 else 'stages have'} not been run, or not with the "
        "parameters and code of today"
    )


def signed(points: float) -> str:
    """Return a difference with its sign, to two decimals; what rounds to zero has none."""
    text = f"{points:+.2f}"
    return "0.00" if float(text) == 0 else text


def gained(found: Spread | None, seeds: int) -> str:
    """Return a difference of scores in points with its sign: ``+0.34 ± 0.10``."""
    if found is None:
        return NONE
    text = signed(100 * found.mean)
    if found.std is not None:
        text += f" ± {100 * found.std:.2f}"
    return text + (f" (n = {found.n})" if found.n != seeds else "")
