"""Protocols and messages between the parts of a run, independent of DVC and of processes."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Outcome = Literal["ran", "cached", "failed", "skipped"]


class Listener(Protocol):
    """Receives the events of a run, such as the view and the tracking."""

    def started(self, name: str) -> None:
        """Stage ``name`` begins to run; a cached or skipped stage only finishes."""

    def event(self, name: str, fields: dict[str, Any]) -> None:
        """Stage ``name`` reported ``fields`` (epoch, loss, ...) while it ran."""

    def finished(self, name: str, outcome: Outcome, seconds: float) -> None:
        """Stage ``name`` is over; a running stage that was stopped counts as failed here."""


@dataclass(frozen=True)
class Summary:
    """Names of stages by their outcome, in the order in which they ended."""

    ran: tuple[str, ...]
    cached: tuple[str, ...]
    failed: tuple[str, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """The command lines of one stage, run one after the other in ``folder``.

    ``gpu`` says whether they use a GPU where there is one; the others run on the CPU's cores.
    Paths are relative to the repository or absolute.
    """

    commands: tuple[str, ...]
    folder: Path
    address: str
    gpu: bool
    inputs: Mapping[str, str] = field(default_factory=dict)  # path -> hash of its content
    outputs: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()  # data outside the graph that the commands read
    cpus: float = 1.0
    gpus: float = 0.0  # a fraction where several stages share a GPU; counts where there are GPUs


@dataclass(frozen=True)
class Event:
    """A running stage reported ``fields``."""

    name: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Exit:
    """A stage's command ended: ``status`` is its exit status, or minus the signal's number."""

    name: str
    status: int


class StageError(Exception):
    """One stage cannot be completed; the message says why."""


class DiskFullError(StageError):
    """There is no room on a disk, so no further stage can be completed; the message names it."""


class Graph(Protocol):
    """The stages and the bookkeeping of their inputs and outputs.

    All methods but ``bookkeeping`` are called inside ``with graph.bookkeeping() as held`` and
    only when ``held`` is true; each may raise `StageError`.
    """

    inputs: Mapping[str, Sequence[str]]  # stage -> the stages that it reads, in plan order
    gpu: Collection[str]  # the stages whose tasks use a GPU where there is one

    def bookkeeping(self) -> AbstractContextManager[bool]:
        """Hold the repository; gives False while another process holds it."""

    def restore(self, name: str) -> bool:
        """Say whether the outputs are there, or came from the cache."""

    def begin(self, name: str) -> Task:
        """Record the inputs as they are now, clear the outputs, and return the task to run."""

    def keep(self, name: str) -> None:
        """Record and cache the outputs of a command that succeeded."""

    def release(self, name: str) -> None:
        """Unlock the files of a stage whose command failed or was stopped."""

    def flush(self) -> None:
        """Write the records of all stages that were kept or restored so far."""


class Engine(Protocol):
    """Runs commands, as processes of this machine or on a cluster."""

    def free(self, *, gpu: bool) -> bool:
        """Say whether one more task may start, of those that use a GPU or of the others."""

    def start(self, name: str, task: Task) -> None:
        """Start ``task``; returns at once."""

    def wait(self, seconds: float) -> list[Event | Exit]:
        """Return the events and exits since the last call, waiting at most ``seconds`` for one."""

    def stop(self, seconds: float) -> None:
        """Ask all running tasks to end, and kill those that have not after ``seconds``."""

    def log(self, name: str) -> Path:
        """Return the file that holds the output of stage ``name``."""
