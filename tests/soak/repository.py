"""The repository of a soak: the project with toy stages, its runs, and what they leave."""

import os
import re
import resource
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.check import CACHE, TRACEBACK, named_objects, ran
from tests.faults.stores import VERIFY, follow
from tests.faults.workspace import Done, Workspace
from tests.project import PARAMS, Project
from tests.soak.draw import Experiment

TOY = Path(__file__).parent / "toy"
KEPT = {"__init__.py", "all.py"}
PEAK = re.compile(r"^VmHWM:\s*(\d+) kB", re.MULTILINE)
REMOVED = re.compile(r"Removed (\d+) objects from repo cache")
# Tracebacks of SIGINT before any line of ours: while dvc is imported, and while Python starts.
NOT_OURS = re.compile(
    r'^Traceback.*\n  File ".*/bin/dvc", line \d+, in <module>'
    r"|^Fatal Python error: init_",
    re.MULTILINE,
)
REFUSED = "Unable to read RWLock-file"  # DVC, whose own process was killed while it wrote the file
HALF_DONE = "SELECT count(*) FROM runs WHERE status = 'RUNNING'"
PARENTS = "SELECT run_uuid, status FROM runs WHERE run_uuid NOT IN (SELECT run_uuid FROM tags " \
    "WHERE key = 'mlflow.parentRunId')"  # fmt: skip
STAGES = """
SELECT count(*) FROM runs JOIN tags parent USING (run_uuid) JOIN tags cached USING (run_uuid)
WHERE parent.key = 'mlflow.parentRunId' AND parent.value = ? AND runs.status = 'FINISHED'
AND cached.key = 'cached' AND cached.value = 'false'
"""


@dataclass(frozen=True)
class Run:
    """A command that has ended: its output, and what it took."""

    done: Done
    seconds: float
    core_seconds: float
    megabytes: float = 0.0  # of the largest of its processes, if they were watched
    files: int = 0  # that one of its processes had open at most


@dataclass
class Repository:
    """The repository, and what it must have so far."""

    workspace: Workspace
    parents: set[str] = field(default_factory=set)  # MLflow's runs of graphs that were looked at
    stages: int = 0  # that ran to their end

    @classmethod
    def create(cls, folder: Path) -> "Repository":
        """Create the project in ``folder`` with toy stages."""
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "w" / "p").mkdir(parents=True)
        workspace = Workspace(folder / "w", folder / "control")
        Project.create(workspace.root)
        for script in (workspace.root / "stages").glob("*.py"):
            if script.name not in KEPT:
                shutil.copyfile(TOY / "stage.py", script)
        shutil.copyfile(TOY / "driver.py", workspace.root / "stages" / "all.py")
        workspace.project.commit()
        return cls(workspace)

    def set(self, experiment: Experiment) -> None:
        """Write the settings of an experiment to params.yaml."""
        text = PARAMS.replace("seed: 0\n", "")
        for key, value in experiment.settings().items():
            text = re.sub(rf"^{key}: .*$", f"{key}: {value}", text, flags=re.MULTILINE)
        (self.workspace.root / "params.yaml").write_text(text)

    def run(self, *command: str, interruption: tuple[str, str] | None = None, at: float = 0) -> Run:
        """Run a command to its end; after ``at`` s send a signal to a process, once it is there."""
        self._prepare()
        used, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        process = self.workspace.start(*command)
        while interruption and process.poll() is None:
            if time.monotonic() >= begun + at and self._interrupt(*interruption):
                break
            time.sleep(0.01)
        done = self.workspace.end(process, orphans=30)
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        cores = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
        return Run(done, time.monotonic() - begun, cores)

    def mend(self, run: Run) -> bool:
        """Do what `verify` says if DVC refused its list of the files in use; say whether it did."""
        refused = REFUSED in run.done.output
        if refused:
            follow(self.workspace, self.workspace.run(*VERIFY))
        return refused

    def watch(self, *command: str) -> Run:
        """Run a command to its end, and watch memory and open files of its processes."""
        self._prepare()
        process, megabytes, files = self.workspace.start(*command), 0.0, 0
        while process.poll() is None:
            for pid in self.workspace.alive():
                with suppress(OSError):
                    peak = PEAK.search(Path(f"/proc/{pid}/status").read_text())
                    megabytes = max(megabytes, int(peak[1]) / 1024 if peak else 0)
                    files = max(files, len(list(Path(f"/proc/{pid}/fd").iterdir())))
            time.sleep(0.05)
        return Run(self.workspace.end(process), 0, 0, megabytes, files)

    def _prepare(self) -> None:
        self.workspace.plan()
        (self.workspace.control / "ended").unlink(missing_ok=True)

    def _interrupt(self, name: str, target: str) -> bool:
        """Send a signal to a process, and say whether it is there."""
        pid = self.workspace.roles().get("dvc" if target == "group" else target)
        if pid:
            with suppress(ProcessLookupError):
                (os.killpg if target == "group" else os.kill)(pid, signal.Signals[name])
        return pid is not None

    def look(self, run: Run, *, interrupted: bool, killed: bool) -> Iterator[str]:
        """Yield what is wrong after a run, and count the stages that ran in it."""
        shown = len(ran(run.done.output))
        if run.done.hung:
            yield "it, or a process that it left, had to be killed"
        excused = interrupted and NOT_OURS.search(run.done.output)
        if TRACEBACK.search(run.done.output) and not excused:
            yield "it shows a traceback"
        if run.done.status and not interrupted:
            yield f"it ended with status {run.done.status}"
        file = self.workspace.control / "ended"
        ended = len(file.read_text().split()) if file.exists() else 0
        new = {name: status for name, status in self._query(PARENTS) if name not in self.parents}
        self.parents |= new.keys()
        logged = sum(self._query(STAGES, name)[0][0] for name in new)
        self.stages += logged
        if len(new) > 1:
            yield f"MLflow has {len(new)} runs of it"
        if abs(logged - shown) > killed:
            yield f"MLflow has {logged} stages, and {shown} ran"
        if ended < shown or (ended > shown and not interrupted):
            yield f"{ended} stages ended, and {shown} ran"
        if not interrupted and set(new.values()) - {"FINISHED"}:
            yield "its run in MLflow is not finished"

    def settled(self) -> Iterator[str]:
        """Yield what is wrong after a run to the end, and commit it."""
        root = self.workspace.root
        if open_runs := self._query(HALF_DONE)[0][0]:
            yield f"{open_runs} runs in MLflow look as if they went on"
        self.workspace.project.commit()
        status = self.workspace.run("dvc", "data", "status")
        if "No changes" not in status.output:
            yield f"dvc data status: {' '.join(status.output.split())[:200]}"
        verified = self.workspace.run(*VERIFY)
        if verified.status:
            yield f"verify: {verified.output.splitlines()[0][:200]}"
        have = {file.parent.name + file.name for file in (root / CACHE).glob("??/*")}
        used, removed = named_objects(root), self.collected()
        if not used <= have or removed != len(have - used):
            yield f"dvc gc --dry removes {removed} of {len(have)} objects, and {len(used)} are used"

    def collected(self) -> int | None:
        """Return how many objects `dvc gc -w` would remove; None if it does not say."""
        output = self.workspace.run("dvc", "gc", "-w", "--dry", "-f").output
        match = REMOVED.search(output)
        return int(match[1]) if match else 0 if "No unused 'repo'" in output else None

    def _query(self, query: str, *values: str) -> list[tuple[str, ...]]:
        database = self.workspace.root / "mlflow.db"
        if not database.exists():
            return [(0,)] if "count" in query else []  # type: ignore[list-item]
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return list(connection.execute(query, values))
