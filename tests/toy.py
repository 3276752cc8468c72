"""A repository of toy stages that write small files, under real DVC."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from pipeline.run.driver import execute

SOURCE = Path(__file__).parents[1]
DRIVER = """
import sys
from pathlib import Path
from pipeline.run import interrupts
from pipeline.run.driver import execute
from pipeline.errors import UserError
with interrupts.stoppable():
    try:
        sys.exit(bool(execute(Path.cwd(), int(sys.argv[1])).failed))
    except UserError as error:
        sys.exit(f"error: {error}")
"""


def python(code: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run ``code`` in ``folder`` with the project's packages."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )


class Toy:
    """A repository with toy stages, each of which notes in ``runs`` that it ran."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "stages").mkdir(parents=True)
        (root / "code.txt").write_text("code\n")
        (root / ".gitignore").write_text("/artifacts/\n/runs\n")
        subprocess.run(["git", "init", "-q"], cwd=root, check=True)
        Repo.init(str(root)).close()
        (root / ".dvc" / "config").write_text(
            "[core]\n    analytics = false\n[cache]\n    type = hardlink,copy\n"
        )
        self.stages: dict[str, Any] = {}

    def add(self, name: str, *reads: str, run: str = "true", value: str = "", **keys: Any) -> None:
        """Add a stage that writes what it reads, and ``value``, to artifacts/NAME/value."""
        sources = " ".join(["code.txt", *(f"artifacts/{read}/value" for read in reads)])
        self.stages[name] = {
            "cmd": f"echo {name} >> runs && {run} && mkdir -p artifacts/{name} && "
            f"(cat {sources}; echo {name} {value}) > artifacts/{name}/value",
            "wdir": "..",
            "deps": ["code.txt", *(f"artifacts/{read}" for read in reads)],
            "outs": [f"artifacts/{name}"],
        } | keys
        self.write()

    def write(self) -> None:
        file = self.root / "stages" / "dvc.yaml"
        file.write_text(yaml.safe_dump({"stages": self.stages}, sort_keys=False))

    def execute(self, jobs: int = 2, **options: Any) -> Any:
        return execute(self.root, jobs, **options)

    def ran(self) -> list[str]:
        """Return the stages whose command ran since the last call, sorted."""
        runs = self.root / "runs"
        names = sorted(runs.read_text().split()) if runs.exists() else []
        runs.unlink(missing_ok=True)
        return names

    def dvc(self, action: str, target: str = "stages/dvc.yaml") -> Any:
        """Do what ``dvc ACTION TARGET`` does."""
        with chdir(self.root), Repo() as repo:
            return getattr(repo, action)([target])

    def value(self, name: str) -> str:
        return (self.root / "artifacts" / name / "value").read_text()

    def lock(self) -> bytes:
        return (self.root / "stages" / "dvc.lock").read_bytes()

    @contextmanager
    def driver(self, jobs: int = 2) -> Iterator[subprocess.Popen[str]]:
        """Start a driver as a process of its own."""
        with subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(jobs)],
            cwd=self.root,
            env=os.environ | {"PYTHONPATH": str(SOURCE)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def alone(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Leave out of the environment what the machine and its user have set."""
    for key, value in {
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder / "site"),
        "GIT_CONFIG_GLOBAL": "/dev/null",
    }.items():
        monkeypatch.setenv(key, value)
    settings = ("ENGINE", "GPUS_PER_STAGE", "GPU_JOBS", "JOBS", "LAUNCH", "THREADS")
    for key in (*(f"SMS_{name}" for name in settings), "DVC_STAGE", "DVC_ROOT", "RAY_ADDRESS"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def until(what: Callable[[], object], seconds: float = 20) -> None:
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
