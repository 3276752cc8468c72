"""Starts the stages whose inputs are there, those with the longest remaining chain first."""

import heapq
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pipeline.run.interfaces import (
    DiskFullError,
    Engine,
    Event,
    Exit,
    Graph,
    Listener,
    Outcome,
    StageError,
    Summary,
)
from pipeline.storage import disk_space

TICK = 0.1  # seconds between looks at the running stages
SECTION = 0.5  # seconds of holding the repository lock before other DVC commands may have it
GRACE = 5.0  # seconds that a stopped stage has to end by itself


class Priority(NamedTuple):
    """A stage's position in a queue: longest remaining dependency chain first, then plan order."""

    height: int
    position: int
    name: str


class Scheduler:
    """Runs a graph on an engine; a stage waits for the stages that it reads, and for a free slot.

    A stage is ``unchecked`` once its inputs are there, ``runnable`` if its outputs are not in the
    cache, then ``running``, and ``ended`` until its outputs are kept. ``full`` is set when a disk
    is full: running stages go on, and no other starts.
    """

    def __init__(
        self, graph: Graph, engine: Engine, tell: Listener, stopping: Callable[[], bool]
    ) -> None:
        self.graph, self.engine, self.tell, self.stopping = graph, engine, tell, stopping
        self.missing = {name: set(reads) for name, reads in graph.inputs.items()}
        self.readers: dict[str, list[str]] = {name: [] for name in graph.inputs}
        for name, reads in graph.inputs.items():
            for read in reads:
                self.readers[read].append(name)
        self.priorities = priorities(graph.inputs, self.readers)
        self.unchecked = sorted(
            self.priorities[n] for n, reads in self.missing.items() if not reads
        )
        self.runnable: dict[bool, list[Priority]] = {True: [], False: []}  # on a GPU, on the CPU
        self.running: dict[str, float] = {}
        self.ended: list[tuple[Exit, float]] = []  # with the seconds that the command took
        self.outcomes: dict[str, Outcome] = {}
        self.reasons: dict[str, str] = {}  # of failed stages
        self.unwritten = False  # whether a stage is kept that the graph's records do not name
        self.full: str | None = None

    def run(self) -> Summary:
        """Bring every stage up to date, or as many as failures and ``stopping`` allow."""
        try:
            while self._goes_on() and not self.stopping():
                worked = self._may_work() and self._work()
                self._receive(self.engine.wait(0 if worked else TICK))
            self._receive(self.engine.wait(0))
        finally:
            self.engine.stop(GRACE)
            self._finish()
        return self.summary()

    def summary(self) -> Summary:
        """Return the outcomes of the stages so far."""

        def names(wanted: Outcome) -> tuple[str, ...]:
            return tuple(name for name, outcome in self.outcomes.items() if outcome == wanted)

        return Summary(names("ran"), names("cached"), names("failed"), names("skipped"))

    def _goes_on(self) -> bool:
        if self.full:
            return bool(self.running or self.ended)
        return len(self.outcomes) < len(self.missing)

    def _may_work(self) -> bool:
        unchecked = self.unchecked and not self.full
        return bool(self.ended or unchecked or self._startable())

    def _startable(self) -> list[Priority] | None:
        """Return the queue of the next stage, of those with a free slot."""
        if self.full:
            return None
        queues = [
            queue for gpu, queue in self.runnable.items() if queue and self.engine.free(gpu=gpu)
        ]
        return min(queues, default=None)

    def _work(self) -> bool:
        """Check, start and keep stages for at most ``SECTION``; say whether the lock was free.

        The records are written before the lock is free again: `dvc gc`, which may then run, removes
        every object that they do not name.
        """
        with self.graph.bookkeeping() as held:
            end = time.monotonic() + SECTION
            while held and time.monotonic() < end and not self.stopping():
                if self.ended:
                    self._keep(*self.ended.pop(0))
                elif queue := self._startable():
                    self._start(heapq.heappop(queue).name)
                elif self.unchecked and not self.full:
                    self._check(heapq.heappop(self.unchecked))
                else:
                    break
            if self.unwritten:
                self._flush()
        return held

    def _check(self, priority: Priority) -> None:
        name, begun = priority.name, time.monotonic()
        try:
            cached = self.graph.restore(name)
        except StageError as error:
            self._fail(name, error, 0.0)
            return
        if cached:
            self._done(name, "cached", time.monotonic() - begun)
        else:
            heapq.heappush(self.runnable[name in self.graph.gpu], priority)

    def _start(self, name: str) -> None:
        try:
            task = self.graph.begin(name)
        except StageError as error:
            self._fail(name, error, 0.0)
            return
        try:
            self.engine.start(name, task)
        except OSError as error:
            sentence = disk_space.shortage(error)
            self.graph.release(name)
            if sentence is None:
                raise
            self._fail(name, DiskFullError(sentence), 0.0)
            return
        self.running[name] = time.monotonic()
        self.tell.started(name)

    def _receive(self, reports: Sequence[Event | Exit]) -> None:
        for report in reports:
            if isinstance(report, Exit):
                seconds = time.monotonic() - self.running.pop(report.name)
                self.ended.append((report, seconds))
            else:
                self.tell.event(report.name, report.fields)

    def _keep(self, end: Exit, seconds: float) -> None:
        try:
            if end.status == 0:
                self.graph.keep(end.name)
            else:
                self.graph.release(end.name)
        except StageError as error:
            self._fail(end.name, error, seconds)
            return
        if end.status == 0:
            self._done(end.name, "ran", seconds)
        else:
            self._fail(end.name, failure(end.status), seconds)

    def _done(self, name: str, outcome: Outcome, seconds: float) -> None:
        self.outcomes[name] = outcome
        self.unwritten = True
        self.tell.finished(name, outcome, seconds)
        for reader in self.readers[name]:
            self.missing[reader].remove(name)
            if not self.missing[reader]:
                heapq.heappush(self.unchecked, self.priorities[reader])

    def _fail(self, name: str, reason: StageError, seconds: float) -> None:
        self.outcomes[name], self.reasons[name] = "failed", str(reason)
        if isinstance(reason, DiskFullError):
            self.full = self.full or str(reason)
        self.tell.finished(name, "failed", seconds)
        waiting = list(self.readers[name])
        while waiting:
            reader = waiting.pop()
            if reader not in self.outcomes:
                self.outcomes[reader] = "skipped"
                self.tell.finished(reader, "skipped", 0.0)
                waiting += self.readers[reader]

    def _finish(self) -> None:
        """Keep the stages that ended, release those that were stopped, and write the records."""
        held = False
        while not held:
            with self.graph.bookkeeping() as held:
                if held:
                    while self.ended:
                        self._keep(*self.ended.pop(0))
                    for name, begun in self.running.items():
                        self.graph.release(name)
                        self.tell.finished(name, "failed", time.monotonic() - begun)
                    self._flush()

    def _flush(self) -> None:
        try:
            self.graph.flush()
            self.unwritten = False
        except DiskFullError as error:  # the next run finds the outputs in the run cache
            self.full = self.full or str(error)


def priorities(
    inputs: Mapping[str, Sequence[str]], readers: Mapping[str, list[str]]
) -> dict[str, Priority]:
    """Return each stage's priority: minus the length of its longest chain, then plan order.

    List scheduling by the longest remaining chain is at most 2 - 1/slots times slower than the
    best order, and close to it in practice.
    """
    height: dict[str, int] = {}
    for name in reversed(list(inputs)):  # in plan order inputs come first
        height[name] = 1 + max((height[reader] for reader in readers[name]), default=0)
    return {name: Priority(-height[name], index, name) for index, name in enumerate(inputs)}


def failure(status: int) -> StageError:
    """Return the error of a command that ended with ``status``."""
    if status == disk_space.STATUS:
        return DiskFullError(disk_space.full())
    if status >= 0:
        return StageError(f"exit status {status}")
    memory = ", as the kernel does where memory runs out" if status == -signal.SIGKILL else ""
    return StageError(f"killed by signal {-status}{memory}")
