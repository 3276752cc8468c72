"""Seconds that an engine adds to a stage, and its parallel efficiency, with sleeping commands.

    python -m benchmarks.engines                                   # the local engine
    python -m benchmarks.engines --engine local ray --slots 2 8 --sleep 0.5 5
    python -m benchmarks.engines --engine ray --slots 64 --sleep 0.1 --stages 10000

Each graph has one stage for each slot, which starts servers and workers, and then ``stages``
stages, all ready at once, in a temporary repository under git and DVC. A stage sleeps in a
fork of the fork server, writes one small file and imports no torch. With s seconds of sleep, n
stages on k slots and t seconds from the first start to the last end, the overhead of a stage is
t k / n - s, and the efficiency s n / (k t). `start` is from the call to the first start,
`driver` the seconds of a core of the driver for each stage, and `memory` its peak in MB. More slots
than cores are possible, since a stage only sleeps; a cluster of Ray has that many logical CPUs.
"""

import argparse
import os
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
SLEEPER = """
import sys, time
from pathlib import Path
time.sleep(float(sys.argv[1]))
Path(sys.argv[2]).mkdir(parents=True)
Path(sys.argv[2], "name").write_text(sys.argv[2])
"""


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


def write(root: Path, slots: int, stages: int, sleep: float) -> None:
    """Write a repository with ``slots`` first stages, and ``stages`` that read their outputs."""
    from dvc.repo import Repo  # noqa: PLC0415 - slow

    (root / "stages").mkdir(parents=True)
    shutil.copy(ROOT / "stages" / "run", root / "stages" / "run")
    (root / "stages" / "__init__.py").touch()
    (root / "stages" / "sleeper.py").write_text(SLEEPER)
    (root / ".gitignore").write_text("/artifacts/\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    Repo.init(str(root)).close()
    first = [f"w{number}" for number in range(slots)]
    reads = {name: [] for name in first} | {f"s{n}": first for n in range(stages)}
    graph = {
        name: {
            "cmd": f"stages/run sleeper {sleep} artifacts/{name}",
            "wdir": "..",
            "deps": ["stages/sleeper.py", *(f"artifacts/{read}" for read in inputs)],
            "outs": [f"artifacts/{name}"],
        }
        for name, inputs in reads.items()
    }
    text = yaml.safe_dump({"stages": graph}, sort_keys=False)
    (root / "stages" / "dvc.yaml").write_text(text)


def measure(root: Path, slots: int) -> tuple[float, float, float, float]:
    """Return the seconds to the first start, of all later stages, and of a core for each stage.

    The last number is that of the later stages.

    Raises:
        SystemExit: a stage failed, whose log the driver has shown, or a signal stopped the run.
    """
    from pipeline.run.driver import execute  # noqa: PLC0415 - DVC

    clock, begun = Clock(), time.monotonic()
    used = time.process_time()
    summary = execute(root, slots, listeners=[clock])
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
    parser.add_argument("--engine", nargs="+", choices=["local", "ray"], default=["local"])
    parser.add_argument("--slots", type=int, nargs="+", default=[2])
    parser.add_argument("--sleep", type=float, nargs="+", default=[0.5, 5.0])
    parser.add_argument("--stages", type=int, help="default: 10 for each slot")
    flags = parser.parse_args()
    print("engine  slots  sleep  stages  start  overhead  efficiency  driver  memory")
    for slots in flags.slots:
        for sleep in flags.sleep:
            for engine in flags.engine:
                os.environ["SMS_ENGINE"] = engine
                with tempfile.TemporaryDirectory() as folder:
                    os.environ["DVC_SITE_CACHE_DIR"] = str(Path(folder, "site"))
                    root = Path(folder, "project")
                    write(root, slots, flags.stages or 10 * slots, sleep)
                    start, whole, used, count = measure(root, slots)
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                print(
                    f"{engine:6s} {slots:6d} {sleep:6.1f} {count:7.0f} {start:6.1f} "
                    f"{whole * slots / count - sleep:9.3f} {sleep * count / slots / whole:11.3f} "
                    f"{used:7.3f} {memory:7.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
