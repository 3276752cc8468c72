"""Seconds to plan a graph, to write it, and to run it again when there is nothing to do.

    python -m benchmarks.graph
    python -m benchmarks.graph --stages 74 1000

Each graph is the default recipe's with more seeds (and, for the largest, more candidates), its real
commands, names and dependencies, in a temporary repository under git and DVC. The stages are
filled without running their commands: each artifact is one small file. `plan` is from params.yaml
to the plan, `write` from there to stages/dvc.yaml, and `no-op` a process that imports the driver
and compares every stage with the lock file; `dvc repro` skips this where no file has changed since
the last run. In brackets are seconds of a core, which depend less on other load.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from pipeline.config import experiment
from pipeline.plan import build, dvc_yaml
from pipeline.run.interfaces import Event, Exit, Task

ROOT = Path(__file__).parent.parent
SIZES = {74: (1, 3), 500: (7, 3), 1000: (14, 3), 3000: (20, 10)}  # about so many: seeds, m
NO_OP = """
import sys
from pathlib import Path
from pipeline.run.driver import execute
summary = execute(Path.cwd())
sys.exit(bool(summary.ran or summary.failed or summary.skipped))
"""


class Filler:
    """An engine whose stages write one small file and take no time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ended: list[Event | Exit] = []

    def free(self, *, gpu: bool) -> bool:
        """Say that a slot is free."""
        del gpu
        return True

    def start(self, name: str, task: Task) -> None:
        """Write the artifact of stage ``name``."""
        del task
        out = self.root / "artifacts" / name
        out.mkdir(parents=True)
        (out / "name").write_text(f"{name}\n")
        self.ended.append(Exit(name, 0))

    def wait(self, seconds: float) -> list[Event | Exit]:
        """Return the exits since the last call."""
        del seconds
        ended, self.ended = self.ended, []
        return ended

    def stop(self, seconds: float) -> None:
        """Nothing runs."""

    def log(self, name: str) -> Path:
        """There are no logs."""
        return self.root / name


def settings(seeds: int, m: int) -> experiment.Experiment:
    """Return the default parameters with other numbers of seeds and candidates."""
    changes = {"seeds": list(range(seeds)), "m": m}
    return experiment.load(ROOT / "params.yaml").with_values(changes)


def measure(root: Path, params: experiment.Experiment) -> str:
    """Return the number of stages and the seconds of each part, in an empty folder ``root``."""
    from pipeline.run.driver import execute  # noqa: PLC0415 - DVC, which planning does without

    for room in ("pipeline", "stages"):
        ignored = shutil.ignore_patterns("__pycache__", "dvc.*")
        shutil.copytree(ROOT / room, root / room, ignore=ignored)
    shutil.copytree(ROOT / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    shutil.copyfile(ROOT / ".gitignore", root / ".gitignore")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    marks = [_now()]
    plan = build.build(params)
    marks.append(_now())
    dvc_yaml.write(plan, root / "stages" / "dvc.yaml")
    marks.append(_now())
    execute(root, engine=Filler(root))
    marks.append(_now())
    subprocess.run([sys.executable, "-c", NO_OP], cwd=root, check=True)
    marks.append(_now())
    parts = (f"{b[0] - a[0]:6.1f} ({b[1] - a[1]:5.1f})" for a, b in pairwise(marks))
    return f"{len(plan.nodes):6d} " + " ".join(parts)


def _now() -> tuple[float, float]:
    """Return seconds on the clock, and seconds of a core of this process and its children."""
    used = os.times()
    return time.perf_counter(), sum(used[:4])


def main() -> None:
    """Print a line a size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", type=int, nargs="+", choices=SIZES, default=list(SIZES))
    sizes = parser.parse_args().stages
    if len(sizes) > 1:  # a process each: what one has read, it does not read again
        for size in sizes:
            command = [sys.executable, "-m", "benchmarks.graph", "--stages", str(size)]
            subprocess.run(command, check=True)
        return
    print("stages  plan           write          fill           no-op")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["DVC_SITE_CACHE_DIR"] = str(Path(folder, "site"))
            root = Path(folder, "project")
            root.mkdir()
            print(measure(root, settings(*SIZES[size])), flush=True)


if __name__ == "__main__":
    main()
