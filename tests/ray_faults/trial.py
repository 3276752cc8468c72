"""One trial: the graph of a small experiment under one fault, compared with plain DVC's result."""

import os
import re
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests import project as projects
from tests.ray_faults.draw import Fault
from tests.ray_faults.driver import PATIENCE, Driver
from tests.ray_faults.nodes import Nodes
from tests.toy import alive, until

TRAINING = re.compile(r"-(dense|c\d+)$")
PROCESSES = {  # part of a process's command line, by fault
    "lease": "ray::{stage}",
    "actor": "ray::Host",
    "raylet": "/raylet/raylet ",
    "head": "/raylet/raylet ",
    "keeper": "pipeline.run.ray_cluster ",
}
NAMED = r"lost 3 times, at last on node \S+: "
GOOD = "serial lock"
AWAY, LIMIT = 20, 3


class Start(NamedTuple):
    """The start of a stage's process."""

    stage: str
    node: str
    pid: int
    when: float


class Trial:
    """The run of one fault; ``problems`` says which laws it broke."""

    def __init__(self, fault: Fault, nodes: Nodes, project: projects.Project, lock: bytes) -> None:
        self.fault, self.nodes, self.project, self.expected = fault, nodes, project, lock
        self.address = "" if fault.kind == "keeper" else nodes.address
        self.journal = project.root.parent / "journal"
        self.journal.touch()
        self.drivers: list[Driver] = []
        self.problems: list[str] = []
        self.hit: list[str] = []  # the trainings at whose start the fault came

    def starts(self) -> list[Start]:
        """Return the stages that have started."""
        lines = [line.split() for line in self.journal.read_text().splitlines()]
        return [Start(w[1], w[2], int(w[3]), float(w[4])) for w in lines if w[0] == "start"]

    def run(self) -> None:
        """Run the trial.

        Raises:
            OSError: the cluster does not start, so that there is no trial.
        """
        if self.address:
            self.nodes.ready(quick=self.fault.quick)
        try:
            self._run()
            self._check()
        except AssertionError as error:
            self.problems.append(str(error))
        finally:
            for driver in self.drivers:
                driver.kill()

    def _run(self) -> None:
        kind = self.fault.kind
        self.nodes.hide(self.project.root if self.fault.blind else None)
        driver = self._drive()
        self._strike(driver)
        status = driver.wait()
        again = kind in {"head", "keeper", "driver", "limit"}
        if status is None:
            self.problems.append("the driver hangs")
        elif again != bool(status):
            self.problems.append(f"the driver ended with {status}")
        if kind == "limit" and not re.search(NAMED, driver.text()):
            self.problems.append("the log does not name the node")
        if "Traceback" in driver.text():
            self.problems.append("the driver showed a traceback")
        if kind == "head":
            self.nodes.stop("a", "b")
            refused = self._drive()
            if not refused.wait() or "no Ray cluster answers there" not in refused.text():
                self.problems.append("a dead cluster is not one sentence")
            self.nodes.ready(quick=self.fault.quick)
        if again and self._drive().wait() != 0:
            self.problems.append("the last driver failed")

    def _drive(self) -> Driver:
        self.drivers.append(Driver(self.nodes, self.project, self.journal, self.address))
        return self.drivers[-1]

    def _strike(self, driver: Driver) -> None:
        """Wait for the moment, and let the fault happen."""
        fault, seen = self.fault, 0
        for _ in range(LIMIT if fault.kind == "limit" else 1):
            seen, start = self._next(driver, seen)
            time.sleep(max(0, start.when + fault.delay - time.time()))
            self.hit.append(start.stage)
            self._act(fault.target if fault.kind == "limit" else fault.kind, start)

    def _next(self, driver: Driver, seen: int) -> tuple[int, Start]:
        """Return the next training on the node, or the next start of the one that was hit."""
        found: list[tuple[int, Start]] = []

        def fits(start: Start) -> bool:
            if self.hit:
                return start.stage in self.hit
            return start.node == self.fault.node and bool(TRAINING.search(start.stage))

        def look() -> bool:
            found[:] = [(n + 1, s) for n, s in enumerate(self.starts()) if n >= seen and fits(s)]
            return bool(found) or driver.process.poll() is not None

        until(look, PATIENCE)
        assert found, "no training started on the node"
        return found[0]

    def _act(self, kind: str, start: Start) -> None:
        if kind == "worker":
            end(start.pid)
        elif kind == "fork server":
            end(parent(start.pid))
        elif kind == "driver":
            lock = self.project.root / ".dvc" / "tmp" / "sms" / "driver.lock"
            end(int(lock.read_text()))
        elif kind == "link":
            self.nodes.cut(AWAY)
        elif kind == "disk":
            self.nodes.fill()
        else:
            words = PROCESSES[kind].format(stage=start.stage)
            found = [p for p, line in self.nodes.processes(start.node).items() if words in line]
            assert found, f"no process {words} on the node"
            for pid in found:
                end(pid)

    def _check(self) -> None:
        lock = self.project.root / "stages" / "dvc.lock"
        if not lock.exists() or lock.read_bytes() != self.expected:
            self.problems.append("the lock file differs")
        kept = [driver.kept() for driver in self.drivers]
        for start in self.starts():
            if any(start.stage in names and start.when > names[start.stage] for names in kept):
                self.problems.append(f"{start.stage} ran again after its end")
        workers = [start.pid for start in self.starts()]
        with suppress(AssertionError):
            until(lambda: not any(map(alive, workers)), 30)
        if any(map(alive, workers)):
            self.problems.append("a stage is still running")
        left = self.nodes.view("b", self.nodes.folder / "b").glob("sms-node-*/*")
        if self.fault.kind not in {"raylet", "link", "keeper"} and list(left):
            self.problems.append("node b keeps files")

    def row(self, seconds: float) -> dict[str, str]:
        """Return the row of the table."""
        fault, names = self.fault, [start.stage for start in self.starts()]
        return {
            "trial": str(fault.trial),
            "fault": f"limit, {fault.target}" if fault.kind == "limit" else fault.kind,
            "node": fault.node,
            "project's folder": "not seen" if fault.blind else "seen",
            "node lost after": "10 s" if fault.quick else "Ray's default",
            "training": " ".join(dict.fromkeys(self.hit)),
            "delay (s)": str(fault.delay),
            "starts again": str(len(names) - len(set(names))),
            "drivers": str(len(self.drivers)),
            "seconds": f"{seconds:.0f}",
            "end": "; ".join(self.problems) or GOOD,
        }


def end(pid: int) -> None:
    """Kill a process, unless it has ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def parent(pid: int) -> int:
    """Return the parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def run(fault: Fault, base: projects.Project, lock: bytes, nodes: Nodes) -> dict[str, str]:
    """Return the row of one trial, whose files are removed if it went well."""
    folder, begun = nodes.folder / str(fault.trial), time.time()
    folder.mkdir()
    trial = Trial(fault, nodes, base.copy(folder / "project"), lock)
    trial.run()
    row = trial.row(time.time() - begun)
    nodes.hide(None)
    if trial.problems:
        for number, driver in enumerate(trial.drivers):
            (folder / f"driver-{number}.log").write_text(driver.text())
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return row
