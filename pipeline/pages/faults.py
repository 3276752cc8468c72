"""Table of the trials of tests/faults by kind of fault, from docs/data/faults.csv."""

from collections.abc import Callable
from pathlib import Path

from pipeline.pages.stored import Row
from pipeline.pages.stored import rows as rows_of
from pipeline.report.tables.markdown import table

DATA = Path("docs/data/faults.csv")
GOOD, MENDED = "as undisturbed", "as undisturbed, after `verify`"


def by_kind(root: Path) -> str:
    """Return the number of trials and outcomes of each kind of fault, and of all."""
    rows = rows_of(root / DATA)
    kinds = sorted({row["kind"] for row in rows})
    lines = [_line(kind, [row for row in rows if row["kind"] == kind]) for kind in kinds]
    headers = ["fault", "trials", "of which hit the run", "as undisturbed", "after `verify`"]
    return table([*headers, "otherwise", "dates"], [*lines, _line("all", rows)])


def _line(name: str, rows: list[Row]) -> list[str]:
    outcomes = [row["outcome"] for row in rows]
    dates = sorted({row["date"] for row in rows})
    good, mended = outcomes.count(GOOD), outcomes.count(MENDED)
    hit = sum(row["reached"] == "yes" for row in rows)
    numbers = (len(rows), hit, good, mended, len(rows) - good - mended)
    return [name, *map(str, numbers), " to ".join(dict.fromkeys((dates[0], dates[-1])))]


TABLES: dict[str, Callable[[Path], str]] = {"faults": by_kind}
