"""The table of experiments: at most 25 columns, the best experiment first."""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.report.labels import percent
from pipeline.report.metric import Metric
from pipeline.show import columns, dvc_experiments
from pipeline.show.columns import Columns
from pipeline.show.dvc_experiments import Row
from pipeline.show.run_counts import run_counts

NONE = "no experiments yet: `dvc exp run -S m=5` makes one\n"
STYLES = {"failed": "red", "running": "yellow", "queued": "yellow"}
WIDEST = 400  # of a table that is not on a terminal
NULL = "-"


def experiments(root: Path, arguments: Sequence[str]) -> int:
    """Print the table of the experiments of the checkout at ``root``; return the exit status.

    Raises:
        UserError: DVC refuses one of ``arguments``, or no experiment has the key to sort by.
    """
    parser = argparse.ArgumentParser(
        prog="python -m pipeline experiments",
        description="Compare the experiments, the best first.",
        epilog="All other arguments are those of `dvc exp show` that select experiments, such as "
        "-A (of all commits), -n 3 (of the last three), --rev, --hide-failed, --hide-queued.",
        allow_abbrev=False,
    )
    parser.add_argument("--sort-by", default="best", metavar="KEY",
                        help="best (the score of the best method, the default), experiment, "
                        "created, a method, a setting, or a number of metrics.json")  # fmt: skip
    parser.add_argument("--sort-order", choices=["asc", "desc"], help="default: the best first")
    flags, others = parser.parse_known_args(arguments)
    process = dvc_experiments.start(root, others)
    counts, note = _counts(root)  # while DVC collects
    rows = [
        replace(row, counts=counts.get((row.baseline, row.name)))
        for row in dvc_experiments.finish(process)
    ]
    if not rows:
        sys.stdout.write(NONE)
        return 0
    rows = columns.sort(rows, flags.sort_by, flags.sort_order)
    shown = columns.choose(rows, flags.sort_by)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDEST
    console.print(table(rows, shown))
    sys.stdout.writelines(f"{line}\n" for line in [*notes(rows, shown), *note])
    return 0


def table(rows: Sequence[Row], shown: Columns) -> Table:
    """Return the table of ``rows`` with the columns ``shown``."""
    names = {str(row.settings["metric"]) for row in rows if "metric" in row.settings}
    score = Metric(names.pop()).label if len(names) == 1 else "score"
    grid = Table(
        box=box.SIMPLE_HEAD,
        title=f"Test {score} (%) of each method in the last phase; * best of its row",
        title_justify="left",
        title_style="",
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for heading in ("experiment", "created", "state"):
        grid.add_column(heading, no_wrap=heading != "experiment", overflow="fold")
    for key in shown.settings:
        grid.add_column(_heading(key), overflow="fold", max_width=20)
    for key in (*shown.methods, *filter(None, [shown.measure])):
        grid.add_column(_heading(key), justify="right", no_wrap=True)
    for heading in ("ran", "cached"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        grid.add_row(*_cells(row, shown), style=STYLES.get(row.state))
    return grid


def notes(rows: Sequence[Row], shown: Columns) -> list[str]:
    """Return the sentences below the table."""
    lines = [f"{NULL} is a setting's value in its recipe, or its default, and a score not reached."]
    if shown.left_out:
        lines.append(f"Not shown: {', '.join(shown.left_out)}; `dvc exp show` has everything.")
    for row in rows:
        if row.state == "failed":
            reason = row.error or "no reason given"
            lines.append(f"{row.name}: {reason}; `dvc queue logs {row.name}` prints its output.")
    return lines


def _counts(root: Path) -> tuple[dict[tuple[str, str], tuple[int, int]], list[str]]:
    """Return the counts of all experiments, and a sentence if MLflow cannot give them."""
    try:
        return run_counts(root), []
    except Exception as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0][:200]
        return {}, [f"The columns ran and cached are empty, because MLflow fails: {reason}"]


def _cells(row: Row, shown: Columns) -> list[Text]:
    texts = [row.name, _time(row.created), row.state]
    texts += [_setting(key, row.settings.get(key)) for key in shown.settings]
    cells = [Text(text) for text in texts]
    for method in shown.methods:
        score = row.scores.get(method)
        best = method == row.best
        text = NULL if score is None else percent(score) + ("*" if best else " ")
        cells.append(Text(text, style="bold" if best else ""))
    if shown.measure:
        number = columns.measured(row, shown.measure)
        cells.append(Text(NULL if number is None else f"{number:.6g}"))
    return [*cells, *(Text(str(n)) for n in row.counts or ("", ""))]


def _setting(key: str, value: Any) -> str:
    if value is None:
        return NULL
    if key == "sparsity" and isinstance(value, int | float):
        return f"{percent(float(value))} %"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _time(created: datetime | None) -> str:
    if created is None:
        return ""
    now = datetime.now(created.tzinfo)
    return created.strftime("%d %b %H:%M" if created.year == now.year else "%d %b %Y")


def _heading(key: str) -> str:
    """Return ``key`` in lines, so that its column is narrow."""
    return re.sub(r"(?<=[._])", "\n", key)
