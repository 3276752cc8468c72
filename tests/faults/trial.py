"""A trial: a fault, where it runs, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.draw import Fault
from tests.faults.workspace import Base, Done, Workspace, copy

REPRO = ("dvc", "repro")


@dataclass
class Trial:
    """A trial at work: where it runs, its fault, and what came of it."""

    folder: Path
    base: Base
    fault: Fault
    workspace: Workspace = field(init=False)
    first: Done = field(init=False)
    reached: bool = True
    kept: set[str] = field(default_factory=set)  # stages that must not run again
    problems: list[str] = field(default_factory=list)
    tracked: bool = True  # whether MLflow's database is compared
    advised: bool = False  # whether the next run needed the advice of `verify`
    collected: bool = False  # whether objects of the earlier experiment may be gone
    cleanup: list[Callable[[], object]] = field(default_factory=list)

    def end(self) -> None:
        """Kill what is left and unmount disks."""
        if hasattr(self, "workspace"):
            self.workspace.kill_all()
        for step in reversed(self.cleanup):
            step()

    def copy(self, *, end: bool = False, folder: Path | None = None) -> Workspace:
        """Make and return the workspace: a copy of the base's start, or of its end."""
        copy(self.base.end if end else self.base.start, folder or self.folder / "w")
        self.workspace = Workspace(folder or self.folder / "w", self.folder / "control")
        self.workspace.tracked = self.tracked = self.fault.details.get("MLflow") != "off"
        return self.workspace

    def has_run(self, role: str) -> bool:
        """Return whether a process of a role was started since the last plan."""
        roles = self.workspace.control / "roles"
        return roles.exists() and any(
            line.split()[1] == role for line in roles.read_text().splitlines()
        )

    def count(self, point: str) -> int:
        """Return the number of the write to ``point`` that the fault hits."""
        return 1 + int(self.fault.details["at"] * self.base.points.get(point, 1))
