"""Brings all stages of stages/dvc.yaml up to date, several at a time."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import chdir, closing, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.errors import UserError
from pipeline.process import die_with_parent
from pipeline.run.dvc_graph import DvcGraph
from pipeline.run.engines import choose
from pipeline.run.interfaces import Engine, Listener, Outcome, Summary
from pipeline.run.interrupts import INTERRUPTED, STOPPED
from pipeline.run.outside_files import readers
from pipeline.run.provenance import Provenance
from pipeline.run.scheduler import Scheduler

TAIL = 15  # lines of a failed stage's log that are shown


def execute(
    root: Path,
    jobs: int | None = None,
    listeners: Sequence[Listener] = (),
    *,
    engine: Engine | None = None,
    gpu_jobs: int = 1,
) -> Summary:
    """Run the stages of ``root``/stages/dvc.yaml that are neither up to date nor in DVC's cache.

    Stages that fail do not stop others; their last lines of output are shown on stderr. The caller
    holds `pipeline.run.run_lock`.

    Args:
        root: the repository
        jobs: how many commands run at once; the default is ``SMS_JOBS``, or one per core,
            and on a Ray cluster that RAY_ADDRESS names as many as it holds
        listeners: told of each stage's start, events and end
        engine: runs the commands, in place of the one that ``SMS_ENGINE`` names
        gpu_jobs: how many commands share a GPU, where ``SMS_GPU_JOBS`` is not set

    Raises:
        UserError: the graph is unsound, or a disk is full; all finished stages are kept
        SystemExit: 130, after ^C or SIGTERM; all finished stages are kept

    """
    root = root.resolve()
    # DVC resolves some of its paths against the working directory
    with (
        chdir(root),
        _signals() as signals,
        closing(DvcGraph(root, gpu_jobs=gpu_jobs)) as graph,
    ):
        engine = engine or choose(root, jobs, gpu_jobs, partial(readers, graph))
        provenance = Provenance(root, graph)
        graph.before_naming = provenance.record
        tell = Listeners([*listeners, provenance])
        scheduler = Scheduler(graph, engine, tell, lambda: bool(signals))
        try:
            summary = scheduler.run()
        except KeyboardInterrupt:  # a second ^C: the run cache has the finished stages
            sys.stderr.write(STOPPED)
            sys.exit(INTERRUPTED)
        for name in summary.failed:
            sys.stderr.write(_failure_report(name, scheduler.reasons[name], engine.log(name), root))
        with suppress(OSError) if scheduler.full else nullcontext():
            provenance.write()
        _end_if_cut_short(summary, len(graph.inputs), scheduler.full, stopped=bool(signals))
        if sentence := provenance.warning():
            sys.stderr.write(f"warning: {sentence}\n")
    return summary


def _end_if_cut_short(summary: Summary, total: int, full: str | None, *, stopped: bool) -> None:
    """End the run with the number of kept stages, if a disk was full or a signal stopped it."""
    done = len(summary.ran) + len(summary.cached)
    kept = f"{done} stages are done and kept, {total - done} are left"
    if full:
        raise UserError(f"{full}: {kept}; make room, then run again")
    if stopped:
        sys.stderr.write(f"stopped: {kept}\n")
        sys.exit(INTERRUPTED)


class Listeners:
    """Forwards events to all listeners; drops one that raises."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.listeners = list(listeners)

    def started(self, name: str) -> None:
        """Forward to all."""
        self._tell("started", name)

    def event(self, name: str, fields: dict[str, Any]) -> None:
        """Forward to all."""
        self._tell("event", name, fields)

    def finished(self, name: str, outcome: Outcome, seconds: float) -> None:
        """Forward to all."""
        self._tell("finished", name, outcome, seconds)

    def _tell(self, method: str, *arguments: Any) -> None:
        for listener in list(self.listeners):
            try:
                getattr(listener, method)(*arguments)
            except Exception as error:
                self.listeners.remove(listener)
                kind = type(listener).__name__
                sys.stderr.write(f"warning: {kind} is off from here on: {error!r}\n")


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP as requests to stop; a second SIGINT acts at once.

    Under ``dvc repro`` the end of the process dvc is such a request too, and several: the kernel
    sends one for each of its threads.
    """
    caught: list[int] = []
    before: dict[signal.Signals, Any] = {}

    def note(number: int, _: FrameType | None) -> None:
        caught.append(number)
        if number == signal.SIGINT:
            signal.signal(number, before[signal.SIGINT])

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
                before[number] = signal.signal(number, note)
    if "DVC_STAGE" in os.environ:
        die_with_parent(signal.SIGTERM)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _failure_report(name: str, reason: str, log: Path, root: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-TAIL:] if log.exists() else []
    text = "".join(f"    {line}\n" for line in lines)
    return f"\n{name} failed: {reason}\n{text}    ({os.path.relpath(log, root)})\n"
