"""The view of a run: a table of the running stages on a terminal, else one line per stage."""

import sys
import time
from types import TracebackType
from typing import IO, Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.run.interfaces import Outcome

METRICS = ("val_accuracy", "accuracy", "loss")  # a finished stage's line has the first
NAMED = 3  # skipped stages that their line names
COLOURS = {"ran": "green", "failed": "bold red", "skipped": "yellow"}


class View:
    """A listener that shows a run of ``total`` stages.

    It writes lines such as ``[12/71] ran     s0-imp-p1-c0  4.1 s  val_accuracy 0.97``. As a context
    manager on a terminal it also shows a table of the running stages.
    """

    def __init__(self, total: int, stream: IO[str] | None = None) -> None:
        self.total = total
        self.console = Console(file=stream or sys.stdout, highlight=False)
        self.counts: dict[Outcome, int] = {"ran": 0, "cached": 0, "failed": 0, "skipped": 0}
        self.running: dict[str, float] = {}
        self.latest: dict[str, dict[str, Any]] = {}
        self.begun = time.monotonic()
        self.first_start: float | None = None
        self.cached = 0  # stages that were cached since the last line
        self.skipped: list[str] = []  # stages that were skipped since the last line
        self.live: Live | None = None

    def __enter__(self) -> Self:
        """Show the table."""
        if self.console.is_terminal:
            self.live = Live(console=self.console, get_renderable=self.table, transient=True)
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the table and write the last line."""
        if self.live:
            self.live.stop()
            self.live = None
        self._write_waiting()
        if self.done or self.running:
            self.console.print(self.footer())

    def started(self, name: str) -> None:
        """Show stage ``name`` as running."""
        self.running[name] = time.monotonic()
        self.first_start = self.first_start or time.monotonic()

    def event(self, name: str, fields: dict[str, Any]) -> None:
        """Show the latest numbers of stage ``name``."""
        self.latest[name] = {**self.latest.get(name, {}), **fields}

    def finished(self, name: str, outcome: Outcome, seconds: float) -> None:
        """Write the line of stage ``name``; consecutive cached or skipped ones share a line."""
        if (self.cached and outcome != "cached") or (self.skipped and outcome != "skipped"):
            self._write_waiting()
        self.counts[outcome] += 1
        self.running.pop(name, None)
        fields = self.latest.pop(name, {})
        if outcome == "cached":
            self.cached += 1
        elif outcome == "skipped":
            self.skipped.append(name)
        else:
            known = (f"  {key} {_number(fields[key])}" for key in METRICS if key in fields)
            line = f"{outcome:<7} {name}  {seconds:.1f} s{next(known, '')}"
            self._write(line, outcome)
        if self.done == self.total:
            self._write_waiting()

    @property
    def done(self) -> int:
        """The number of stages with an outcome."""
        return sum(self.counts.values())

    def table(self) -> Group:
        """Return the rows of the running stages, and the footer."""
        grid = Table.grid(padding=(0, 2))
        for name, begun in self.running.items():
            fields = self.latest.get(name, {})
            epoch, epochs = fields.get("epoch", 0), fields.get("epochs", 0)
            grid.add_row(
                name,
                ProgressBar(total=epochs, completed=epoch, width=20) if epochs else "",
                f"epoch {epoch}" + (f"/{epochs}" if epochs else "") if epoch else "",
                *(f"{key} {_number(fields[key])}" if key in fields else "" for key in METRICS),
                _clock(time.monotonic() - begun),
            )
        return Group(grid, self.footer())

    def footer(self) -> str:
        """Return the counts, the time so far and an estimate of the rest."""
        left = self.total - self.done - len(self.running)
        counts = [f"{number} {outcome}" for outcome, number in self.counts.items() if number]
        if self.running or left:
            counts.append(f"{len(self.running)} running, {left} left")
        text = f"{', '.join(counts)}; {_clock(time.monotonic() - self.begun)}"
        if self.first_start and self.counts["ran"] and (self.running or left):
            each = (time.monotonic() - self.first_start) / self.counts["ran"]
            text += f", about {_clock(each * (left + len(self.running) / 2))} to go"
        return text

    def _write_waiting(self) -> None:
        """Write the line of the cached or skipped stages since the last line."""
        names = ", ".join(self.skipped[:NAMED])
        more = len(self.skipped) - NAMED
        if self.cached:
            self._write(f"cached  {self.cached} stages")
        if self.skipped:
            self._write(f"skipped {names}{f' and {more} more' if more > 0 else ''}", "skipped")
        self.cached, self.skipped = 0, []

    def _write(self, line: str, outcome: Outcome = "cached") -> None:
        text = Text(f"[{self.done}/{self.total}] {line}", style=COLOURS.get(outcome, ""))
        self.console.print(text, soft_wrap=True)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
