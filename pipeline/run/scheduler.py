"""The scheduling loop: the stages that may start, have ended, or can no longer run."""

import heapq
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
SECTION = 0.5  # seconds after which a bookkeeping section makes room for other DVC commands
FLUSH = 1.0  # seconds for which a finished stage may stay unwritten
GRACE = 5.0  # seconds that a stopped stage has to end by itself


class Priority(NamedTuple):
    """A stage's place in a queue: those with the longest way still behind them go first."""

    height: int
    position: int
    name: str


class Scheduler:
    """Runs a graph on an engine; stages never wait for more than the stages that they read.

    A stage passes through ``unchecked`` (all it reads is there; is it in the cache?), then
    ``runnable`` (it must run; is a slot of its kind free?), then ``running``, then ``ended`` (its
    command is over; are its outputs kept?). Once a disk is full, ``full`` says so: those that are
    running go on, and no other starts.
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
        self.turns = turns(graph.inputs, self.readers)
        self.unchecked = sorted(self.turns[n] for n, reads in self.missing.items() if not reads)
        self.runnable: dict[bool, list[Priority]] = {True: [], False: []}  # on a GPU, on the CPU
        self.running: dict[str, float] = {}
        self.ended: list[tuple[Exit, float]] = []  # with the seconds that it took
        self.outcomes: dict[str, Outcome] = {}
        self.reasons: dict[str, str] = {}  # failed stage -> why
        self.unwritten_since: float | None = None
        self.full: str | None = None

    def run(self) -> Summary:
        """Bring every stage up to date, or as many as failures and ``stopping`` allow."""
        try:
            while self._goes_on() and not self.stopping():
                worked = self._may_work() and self._work()
                self._hear(self.engine.wait(0 if worked else TICK))
            self._hear(self.engine.wait(0))
        finally:
            self.engine.stop(GRACE)
            self._finish()
        return self.summary()

    def summary(self) -> Summary:
        """Return what became of the stages so far."""

        def names(wanted: Outcome) -> tuple[str, ...]:
            return tuple(name for name, outcome in self.outcomes.items() if outcome == wanted)

        return Summary(names("ran"), names("cached"), names("failed"), names("skipped"))

    def _goes_on(self) -> bool:
        if self.full:
            return bool(self.running or self.ended)
        return len(self.outcomes) < len(self.missing)

    def _may_work(self) -> bool:
        return bool(
            self.ended
            or (self.unchecked and not self.full)
            or self._startable()
            or (self.unwritten_since and time.monotonic() - self.unwritten_since > FLUSH)
        )

    def _startable(self) -> list[Priority] | None:
        """Return the queue whose first stage goes next, of those with a free slot."""
        if self.full:
            return None
        queues = [
            queue for gpu, queue in self.runnable.items() if queue and self.engine.free(gpu=gpu)
        ]
        return min(queues, default=None)

    def _work(self) -> bool:
        """Do bookkeeping for at most a section's time; say whether the repository was ours."""
        with self.graph.bookkeeping() as ours:
            end = time.monotonic() + SECTION
            while ours and time.monotonic() < end and not self.stopping():
                if self.ended:
                    self._keep(*self.ended.pop(0))
                elif queue := self._startable():
                    self._start(heapq.heappop(queue).name)
                elif self.unchecked and not self.full:
                    self._check(heapq.heappop(self.unchecked))
                else:
                    break
            waiting = self.unwritten_since
            if ours and waiting and time.monotonic() - waiting > FLUSH:
                self._flush()
        return ours

    def _check(self, turn: Priority) -> None:
        begun = time.monotonic()
        try:
            there = self.graph.restore(turn.name)
        except StageError as error:
            self._fail(turn.name, error, 0.0)
            return
        if there:
            self._done(turn.name, "cached", time.monotonic() - begun)
        else:
            heapq.heappush(self.runnable[turn.name in self.graph.gpu], turn)

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
            self.graph.leave(name)
            if sentence is None:
                raise
            self._fail(name, DiskFullError(sentence), 0.0)
            return
        self.running[name] = time.monotonic()
        self.tell.started(name)

    def _hear(self, reports: Sequence[Event | Exit]) -> None:
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
                self.graph.leave(end.name)
        except StageError as error:
            self._fail(end.name, error, seconds)
            return
        if end.status == 0:
            self._done(end.name, "ran", seconds)
        else:
            self._fail(end.name, failure(end.status), seconds)

    def _done(self, name: str, outcome: Outcome, seconds: float) -> None:
        self.outcomes[name] = outcome
        self.unwritten_since = self.unwritten_since or time.monotonic()
        self.tell.finished(name, outcome, seconds)
        for reader in self.readers[name]:
            self.missing[reader].remove(name)
            if not self.missing[reader]:
                heapq.heappush(self.unchecked, self.turns[reader])

    def _fail(self, name: str, reason: StageError, seconds: float) -> None:
        self.outcomes[name], self.reasons[name] = "failed", str(reason)
        if isinstance(reason, DiskFullError):
            self.full = self.full or str(reason)
        self.tell.finished(name, "failed", seconds)
        lost = list(self.readers[name])
        while lost:
            reader = lost.pop()
            if reader not in self.outcomes:
                self.outcomes[reader] = "skipped"
                self.tell.finished(reader, "skipped", 0.0)
                lost += self.readers[reader]

    def _finish(self) -> None:
        """Keep what ended in time, let go of what was stopped, and write the records."""
        ours = False
        while not ours:
            with self.graph.bookkeeping() as ours:
                if ours:
                    while self.ended:
                        self._keep(*self.ended.pop(0))
                    for name, begun in self.running.items():
                        self.graph.leave(name)
                        self.tell.finished(name, "failed", time.monotonic() - begun)
                    self._flush()

    def _flush(self) -> None:
        try:
            self.graph.flush()
        except (
            DiskFullError
        ) as error:  # the stages' outputs come out of the run cache the next time
            self.full = self.full or str(error)
        self.unwritten_since = None


def turns(
    inputs: Mapping[str, Sequence[str]], readers: Mapping[str, list[str]]
) -> dict[str, Priority]:
    """Return each stage's place: minus the length of the longest chain after it, then plan order.

    List scheduling by the longest remaining chain is at most 2 - 1/slots times slower than the
    best order, and close to it in practice.
    """
    height: dict[str, int] = {}
    for name in reversed(list(inputs)):  # plan order: whatever a stage reads comes before it
        height[name] = 1 + max((height[reader] for reader in readers[name]), default=0)
    return {name: Priority(-height[name], place, name) for place, name in enumerate(inputs)}


def failure(status: int) -> StageError:
    """Return the error of a command that ended with ``status``."""
    if status == disk_space.STATUS:
        return DiskFullError(disk_space.full())
    return StageError(f"exit status {status}" if status >= 0 else f"killed by signal {-status}")
