"""The experiment of a trial, and ``dvc repro`` on it."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from tests import project as projects
from tests.ray_faults.nodes import Nodes

PATIENCE = 400  # seconds after which a driver hangs
DONE = re.compile(r"^\[ *\d+/\d+\] +ran +(\S+)")
JOURNAL = """
import atexit, os, sys, time

def note(word):
    node = os.path.basename(os.environ["TMPDIR"])
    stage = os.environ["DVC_STAGE"].rpartition(":")[2]
    with open(os.environ["FAULTS_JOURNAL"], "a") as file:
        file.write(f"{word} {stage} {node} {os.getpid()} {time.time()}\\n")

if "FAULTS_JOURNAL" in os.environ and os.environ.get("DVC_STAGE", "").startswith("stages/"):
    note("start")
    atexit.register(note, "end")
"""


def experiment(folder: Path) -> projects.Project:
    """Return a project of 11 stages, five of them trainings of a few seconds, without results."""
    tiny = projects.TINY.replace("epochs: 2,", "epochs: 10,").replace("epochs: 1,", "epochs: 10,")
    small = projects.PARAMS.replace("[sms, imp]", "[sms]").replace("phases: null", "phases: 1", 1)
    kept = projects.TINY, projects.PARAMS
    projects.TINY, projects.PARAMS = tiny, small.replace("m: 3", "m: 4")
    try:
        project = projects.Project.create(folder)
    finally:
        projects.TINY, projects.PARAMS = kept
    (folder / "stages" / "__init__.py").write_text(JOURNAL)
    project.run(sys.executable, "-m", "pipeline", "plan")
    project.commit()
    return project


def serial(project: projects.Project, folder: Path) -> bytes:
    """Return the lock file that plain DVC writes."""
    copy = project.copy(folder)
    copy.run(sys.executable, "-m", "dvc", "repro", "stages/dvc.yaml")
    return (folder / "stages" / "dvc.lock").read_bytes()


class Driver:
    """``dvc repro`` on node a, with the time of each line that it prints."""

    def __init__(
        self, nodes: Nodes, project: projects.Project, journal: Path, address: str
    ) -> None:
        environment = nodes.environment("a") | {
            "SMS_ENGINE": "ray",
            "SMS_JOBS": "2",
            "SMS_MLFLOW": "0",
            "SMS_PYTHON": sys.executable,
            "FAULTS_JOURNAL": str(journal),
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(project.root.parent / "site"),
        }
        self.lines: list[tuple[float, str]] = []
        self.process = subprocess.Popen(
            nodes.command("a", [sys.executable, "-m", "dvc", "repro"]),
            cwd=project.root,
            env=environment | ({"RAY_ADDRESS": address} if address else {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append((time.time(), line))

    def wait(self) -> int | None:
        """Return the exit status, None if it does not end."""
        with suppress(subprocess.TimeoutExpired):
            status = self.process.wait(PATIENCE)
            self.reader.join(10)
            return status
        return None

    def kill(self) -> None:
        """End the driver, if it still runs."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def text(self) -> str:
        """Return what was printed."""
        return "".join(line for _, line in self.lines)

    def kept(self) -> dict[str, float]:
        """Return the stages that the driver kept, with the time."""
        found = ((when, DONE.match(line)) for when, line in self.lines)
        return {match[1]: when for when, match in found if match}
