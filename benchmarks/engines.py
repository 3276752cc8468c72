"""Seconds that an engine adds to a stage, and its parallel efficiency, with sleeping commands.

    python -m benchmarks.engines                                   # the local engine
    python -m benchmarks.engines --engine local ray --slots 2 8 --sleep 0.5 5
    python -m benchmarks.engines --engine ray --slots 64 --sleep 0.1 --stages 10000 --shell
    python -m benchmarks.engines --engine none --slots 1000 --sleep 60 --stages 10000

Each graph has one stage for each slot, which starts servers and workers, one that waits for them,
and then ``stages`` stages, all ready at once, in a temporary repository under git and DVC. A stage
has 50 dependencies, as in the default graph, sleeps in a fork of the fork server and writes
one small file; with --shell it is a shell command, in a process without torch. With s seconds of
sleep, n stages on k slots and t seconds from the first start to the last end, the overhead of a
stage is t k / n - s, and the efficiency s n / (k t). `start` is from the call to the first start,
`rate` the stages in a second, `driver` the seconds of a core of the driver for each stage, and
`memory` its peak in MB. More slots than cores are possible, since a stage only sleeps; a
cluster of Ray has that many logical CPUs. The engine `none` starts no process: a stage ends after
its sleep, which measures the driver alone. Each line is measured in a process of its own.
"""

import argparse
import itertools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import yaml

from benchmarks.graph import Filler
from pipeline.run.interfaces import Engine, Event, Exit, Task

ROOT = Path(__file__).parent.parent
SLEEPER = """
import sys, time
from pathlib import Path
time.sleep(float(sys.argv[1]))
Path(sys.argv[2]).mkdir(parents=True)
Path(sys.argv[2], "name").write_text(sys.argv[2])
"""
SHELL = "sleep {sleep} && mkdir -p artifacts/{name} && echo {name} > artifacts/{name}/name"
Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class Clock:
    """A listener that notes when stages start and end."""

    def __init__(self) -> None:
        self.starts: dict[str, float] = {}
        self.ends: dict[str, float] = {}

    def started(self, name: str) -> None:
        """Note the time."""
        self.starts[name] = time.monotonic()

    def event(self, name: str, fields: dict[str, Any]) -> None:
        """Stages report nothing."""

    def finished(self, name: str, outcome: str, seconds: float) -> None:
        """Note the time; a stage that a signal stopped has failed here, and is no error."""
        del seconds, outcome
        self.ends[name] = time.monotonic()


class Idle(Filler):
    """An engine whose stages take ``sleep`` seconds, and no process."""

    def __init__(self, root: Path, slots: int, sleep: float) -> None:
        super().__init__(root)
        self.slots, self.sleep = slots, sleep
        self.due: deque[tuple[float, str]] = deque()

    def free(self, *, gpu: bool) -> bool:
        """Say whether a slot is free."""
        del gpu
        return len(self.due) < self.slots

    def start(self, name: str, task: Task) -> None:
        """Write the artifact, and note when the stage is due to end."""
        super().start(name, task)
        self.due.append((time.monotonic() + self.sleep, name))

    def wait(self, seconds: float) -> list[Event | Exit]:
        """Return the exits that are due, waiting at most ``seconds`` for one."""
        if self.due:
            time.sleep(min(seconds, max(0.0, self.due[0][0] - time.monotonic())))
        ended: list[Event | Exit] = []
        while self.due and self.due[0][0] <= time.monotonic():
            ended.append(Exit(self.due.popleft()[1], 0))
        return ended


def write(root: Path, slots: int, stages: int, sleep: float, *, shell: bool = False) -> None:
    """Write a repository with ``slots`` first stages, a stage that reads them, and its readers."""
    from dvc.repo import Repo  # noqa: PLC0415 - slow

    (root / "stages").mkdir(parents=True)
    shutil.copy(ROOT / "stages" / "run", root / "stages" / "run")
    code = ["stages/__init__.py", "stages/sleeper.py", *(f"stages/code{n}.py" for n in range(47))]
    for file in code:
        (root / file).touch()
    (root / "stages" / "sleeper.py").write_text(SLEEPER)
    (root / ".gitignore").write_text("/artifacts/\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    Repo.init(str(root)).close()
    first = [f"w{number}" for number in range(slots)]
    later = {f"s{number}": ["ready"] for number in range(stages)}
    reads = {name: [] for name in first} | {"ready": first} | later
    command = SHELL if shell else "stages/run sleeper {sleep} artifacts/{name}"
    graph = {
        name: {
            "cmd": command.format(sleep=sleep, name=name),
            "wdir": "..",
            "deps": [*code, *(f"artifacts/{read}" for read in inputs)],
            "outs": [f"artifacts/{name}"],
        }
        for name, inputs in reads.items()
    }
    text = yaml.dump({"stages": graph}, sort_keys=False, Dumper=Dumper)
    (root / "stages" / "dvc.yaml").write_text(text)


def measure(
    root: Path, slots: int, engine: Engine | None = None
) -> tuple[float, float, float, int]:
    """Return the seconds to the first start, of all later stages, and of a core for each stage.

    The last number is that of the later stages.

    Raises:
        SystemExit: a stage failed, whose log the driver has shown, or a signal stopped the run.
    """
    from pipeline.run.driver import execute  # noqa: PLC0415 - DVC

    clock, begun = Clock(), time.monotonic()
    used = time.process_time()
    summary = execute(root, slots, listeners=[clock], engine=engine)
    if summary.failed:
        raise SystemExit(f"no measurement: {len(summary.failed)} stages failed")
    used = time.process_time() - used
    later = [name for name in clock.starts if name.startswith("s")]
    start = min(clock.starts[name] for name in later)
    whole = max(clock.ends[name] for name in later) - start
    return min(clock.starts.values()) - begun, whole, used / len(clock.starts), len(later)


def main() -> None:
    """Print a line for each engine, number of slots and length of sleep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", nargs="+", choices=["local", "ray", "none"], default=["local"])
    parser.add_argument("--slots", type=int, nargs="+", default=[2])
    parser.add_argument("--sleep", type=float, nargs="+", default=[0.5, 5.0])
    parser.add_argument("--stages", type=int, help="default: 10 for each slot")
    parser.add_argument("--shell", action="store_true", help="stages are shell commands")
    flags = parser.parse_args()
    print("engine  slots  sleep  stages  start  rate  overhead  efficiency  driver  memory")
    lines = itertools.product(flags.slots, flags.sleep, flags.engine)
    for slots, sleep, engine in lines:
        sys.stdout.flush()
        if child := os.fork():
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if status:
                sys.exit(status)
        else:
            show(engine, slots, sleep, flags.stages or 10 * slots, shell=flags.shell)
            return


def show(engine: str, slots: int, sleep: float, stages: int, *, shell: bool) -> None:
    """Measure and print one line."""
    if engine != "none":
        os.environ["SMS_ENGINE"] = engine
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DVC_SITE_CACHE_DIR"] = str(Path(folder, "site"))
        root = Path(folder, "project")
        write(root, slots, stages, sleep, shell=shell)
        idle = Idle(root, slots, sleep) if engine == "none" else None
        start, whole, used, count = measure(root, slots, idle)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{engine:6s} {slots:6d} {sleep:6.1f} {count:7d} {start:6.1f} {count / whole:5.1f} "
        f"{whole * slots / count - sleep:9.3f} {sleep * count / slots / whole:11.3f} "
        f"{used:7.3f} {memory:7.0f}"
    )


if __name__ == "__main__":
    main()
