"""A small project, its undisturbed run, and copies of it in which trials run."""

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.project import ROOT, Project

INJECT = Path(__file__).parent / "inject"
CODE = ("pipeline", "stages", "recipes", "tests/faults", "tests/project.py")
LIMIT = 900  # seconds after which a run counts as hanging
EDITS = {  # of the tiny project: the smallest graph with trainings, a merge and a report
    "methods: [sms, imp]": "methods: [sms]",
    "m: 3": "m: 2",
    "phases: null": "phases: 1",
    "groups: true": "groups: false",
}


@dataclass(frozen=True)
class Done:
    """Exit status and output of a command, and whether it had to be killed after `LIMIT`."""

    status: int
    output: str
    hung: bool = False


class Workspace:
    """A folder with the project ``p``, its site cache, and the control files of a trial."""

    def __init__(self, folder: Path, control: Path | None = None) -> None:
        self.folder, self.root = folder, folder / "p"
        self.control = control or folder / "control"
        self.control.mkdir(parents=True, exist_ok=True)
        (folder / "tmp").mkdir(exist_ok=True)
        self.project = Project(self.root)
        self.tracked = True  # whether runs are logged in MLflow

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of the trial's commands."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SMS_", "PYTHONPATH"))}
        settings = self.project.environment() | {
            "PYTHONPATH": str(INJECT),
            "SMS_MLFLOW": "1" if self.tracked else "0",
            "SMS_JOBS": "2",
            "SMS_FAULTS": str(self.control),
            "SMS_FAULTS_ROOT": str(self.root),
            "TMPDIR": str(self.folder / "tmp"),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "MPLCONFIGDIR": str(self.control.parent / "matplotlib"),
        }
        for name in ("MLFLOW_TRACKING_URI", "SMS_ENGINE", "SMS_THREADS", "RAY_ADDRESS"):
            settings.pop(name, None)
        return kept | settings | more

    def plan(self, **plan: Any) -> None:
        """Set the plan of tests/faults/inject for the next command."""
        for name in ("roles", "fired", "count"):
            (self.control / name).unlink(missing_ok=True)
        (self.control / "plan.json").write_text(json.dumps(plan))

    def start(self, *command: str, **more: str) -> subprocess.Popen[str]:
        """Start a command in a session of its own, with its output in the control folder."""
        with (self.control / "output").open("w") as output:
            return subprocess.Popen(
                command,
                cwd=self.root,
                env=self.environment(**more),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )

    def end(self, process: subprocess.Popen[str], *, orphans: float = 60) -> Done:
        """Wait for a command, then for what it left running; kill what goes on after that."""
        hung = False
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            hung = True
        limit = time.monotonic() + orphans
        while self.alive() and time.monotonic() < limit and not hung:
            time.sleep(0.05)
        hung = hung or bool(self.alive())
        self.kill_all()
        process.wait()
        text = (self.control / "output").read_text(errors="replace")
        return Done(process.returncode, text, hung)

    def run(self, *command: str, **more: str) -> Done:
        """Run a command to its end."""
        return self.end(self.start(*command, **more))

    def alive(self) -> list[int]:
        """Return the trial's processes."""
        mark = f"SMS_FAULTS={self.control}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                with suppress(OSError):
                    if mark in (folder / "environ").read_bytes().split(b"\0"):
                        found.append(int(folder.name))
        return found

    def kill_all(self) -> None:
        """Kill the trial's processes and wait until they are gone."""
        while pids := self.alive():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def roles(self) -> dict[str, int]:
        """Return the last living process of each role."""
        file = self.control / "roles"
        lines = file.read_text().splitlines() if file.exists() else []
        pairs = [line.split() for line in lines]
        alive = set(self.alive())
        return {role: int(pid) for pid, role in pairs if int(pid) in alive}

    def fired(self) -> list[tuple[int, str]]:
        """Return the processes that got a signal, with their roles."""
        file = self.control / "fired"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(int(line.split()[0]), line.split()[1]) for line in lines]


@dataclass(frozen=True)
class Base:
    """The project before the disturbed run, and what an undisturbed run makes of it.

    ``start`` has one finished experiment, seed 0, and params.yaml asks for seed 1.
    """

    start: Path
    end: Path
    seconds: float
    points: Mapping[str, int]


def copy(source: Path, folder: Path) -> None:
    """Copy a workspace with its hard links; MLflow's addresses become those of the copy."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", f"{source}/.", str(folder)], check=True)
    shutil.rmtree(folder / "control", ignore_errors=True)
    columns = {
        "experiments": "artifact_location",
        "runs": "artifact_uri",
        "model_versions": "source",
        "logged_models": "artifact_location",
    }
    with closing(sqlite3.connect(folder / "p" / "mlflow.db")) as database, database:
        for table, column in columns.items():
            change = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
            database.execute(change, (f"{source}/", f"{folder}/"))


def base(folder: Path) -> Base:
    """Return the base in ``folder``, made anew if the code has changed."""
    key, state = digest(), folder / "base.json"
    start, end = folder / "start", folder / "end"
    if not state.exists() or json.loads(state.read_text())["digest"] != key:
        shutil.rmtree(folder, ignore_errors=True)
        (start / "p").mkdir(parents=True)
        Project.create(start / "p")
        first = Workspace(start)
        for old, new in EDITS.items():
            first.project.edit("params.yaml", old, new)
        undisturbed(first)
        first.project.edit("params.yaml", "seed: 0", "seed: 1")
        first.project.commit()
        copy(start, end)
        second = Workspace(end)
        second.plan(record=True)
        begun = time.monotonic()
        undisturbed(second)
        seconds = time.monotonic() - begun
        counts = Counter((second.control / "points").read_text().splitlines())
        content = {"digest": key, "seconds": seconds, "points": dict(sorted(counts.items()))}
        state.write_text(json.dumps(content, indent=1))
    known = json.loads(state.read_text())
    return Base(start, end, known["seconds"], known["points"])


def undisturbed(workspace: Workspace) -> None:
    """Run the graph to its end."""
    done = workspace.run("dvc", "repro")
    if done.status or done.hung:
        raise AssertionError(f"an undisturbed run ended with {done.status}:\n{done.output}")


def digest() -> str:
    """Return a hash of the code that a trial runs."""
    files: Sequence[Path] = [
        file
        for name in CODE
        for file in ([ROOT / name] if (ROOT / name).is_file() else sorted((ROOT / name).rglob("*")))
        if file.suffix in {".py", ".yaml", ".csv", ""} and file.is_file()
    ]
    content = b"".join(
        hashlib.sha256(file.read_bytes()).digest() for file in files if file.name != "dvc.lock"
    )
    return hashlib.sha256(content).hexdigest()
