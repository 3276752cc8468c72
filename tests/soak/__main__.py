"""Runs experiments in a row: ``python -m tests.soak``.

They run in one repository with the project's plan, driver, DVC and MLflow, and toy stages. After
every 50 the state is compared with the laws, and a row is appended to the file of results.
"""

import argparse
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from pipeline.bundle import origin
from tests.faults.__main__ import append
from tests.faults.check import CACHE, named_objects
from tests.project import ROOT
from tests.soak.draw import Experiment, draw, fresh
from tests.soak.repository import Repository, Run

REPRO = ("dvc", "repro")
EVERY = 50
SHOWN = 2000  # characters of a run with problems
Row = dict[str, Any]


class Soak:
    """The experiments so far."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.repository, self.seed = Repository.create(folder / "soak"), seed
        self.commit = origin.commit(ROOT)
        self.counts: Counter[str] = Counter()
        self.expected = {True: 10.0, False: 6.0}  # seconds, by `dvc exp run` and by `dvc repro`
        self.problems: list[str] = []

    def experiment(self, number: int) -> None:
        """Run an experiment."""
        experiment = draw(self.seed, number)
        self.counts["experiments"] += 1
        at = experiment.at * self.expected[experiment.by_exp_run]
        interruption = experiment.interruption
        run = self._run(*self._command(experiment), interruption=interruption, at=at)
        self._look(number, run, experiment)
        if interruption is None:
            known = self.expected[experiment.by_exp_run]
            self.expected[experiment.by_exp_run] = 0.7 * known + 0.3 * run.seconds
        elif experiment.continued:
            self.counts["continued"] += 1
            self._look(number, self._run(*REPRO))

    def _run(self, *command: str, **how: Any) -> Run:
        """Run a command, and once more after the advice of `verify`."""
        run = self.repository.run(*command, **how)
        if self.repository.mend(run):
            self.counts["advised"] += 1
            run = self.repository.run(*command, **how)
        return run

    def _command(self, experiment: Experiment) -> tuple[str, ...]:
        if not experiment.by_exp_run:
            self.repository.set(experiment)
            return REPRO
        self.counts["by exp run"] += 1
        pairs = experiment.settings().items()
        return (
            "dvc",
            "exp",
            "run",
            *(word for key, value in pairs for word in ("-S", f"{key}={value}")),
        )

    def _look(self, number: int, run: Run, experiment: Experiment | None = None) -> None:
        interruption = experiment.interruption if experiment else None
        hit = interruption is not None and run.done.status != 0
        self.counts["interrupted"] += hit
        killed = hit and interruption == ("SIGKILL", "driver")
        problems = list(self.repository.look(run, interrupted=hit, killed=killed))
        if problems:
            self._note(f"experiment {number}: {'; '.join(problems)}", run.done.output)

    def _note(self, problem: str, output: str = "") -> None:
        self.problems.append(problem)
        sys.stdout.write(f"{problem}\n{output[-SHOWN:]}\n")
        sys.stdout.flush()

    def row(self) -> Row:
        """End what is unfinished, look at the state, and return the row of results."""
        number, repository = self.counts["experiments"], self.repository
        self._look(number, self._run(*REPRO))
        repository.set(fresh(number))
        new = repository.run(*REPRO)
        self._look(number, new)
        idle = repository.run(*REPRO)
        self._look(number, idle)
        repository.set(fresh(number + 1))
        watched = repository.watch(*REPRO)
        self._look(number, watched)
        for problem in repository.settled():
            self._note(f"after {number}: {problem}")
        left = len(repository.workspace.alive())
        return {
            "seed": self.seed,
            **{key: self.counts[key] for key in ("experiments", "by exp run", "interrupted")},
            "continued": self.counts["continued"],
            "advised": self.counts["advised"],
            "stages": repository.stages,
            "experiment s": round(new.seconds, 1),
            "experiment core s": round(new.core_seconds, 2),
            "no-op s": round(idle.seconds, 1),
            "no-op core s": round(idle.core_seconds, 2),
            "peak MB": round(watched.megabytes),
            "open files": watched.files,
            "processes left": left,
            **dict(self._sizes()),
            "problems": len(self.problems),
            "date": date.today(),
            "commit": self.commit,
        }

    def _sizes(self) -> Iterator[tuple[str, int | float]]:
        root, temporary = self.repository.workspace.root, self.repository.workspace.folder / "tmp"
        objects = {file.parent.name + file.name: file for file in (root / CACHE).glob("??/*")}
        used = named_objects(root)
        yield "objects", len(objects)
        yield "cache MB", _megabytes(list(objects.values()))
        yield "kept by gc MB", _megabytes([objects[name] for name in used if name in objects])
        files = [file for file in (root / ".dvc" / "tmp").rglob("*") if file.is_file()]
        yield ".dvc/tmp files", len(files)
        yield ".dvc/tmp MB", _megabytes(files)
        yield "temporary files", sum(1 for _ in temporary.rglob("*"))
        yield "MLflow MB", _megabytes([root / "mlflow.db"])


def _megabytes(files: list[Path]) -> float:
    return round(sum(file.stat().st_size for file in files) / 1e6, 2)


def soak(
    folder: Path, seed: int, count: int, every: int = EVERY
) -> Iterator[tuple[Row, list[str]]]:
    """Run ``count`` experiments; after ``every`` of them yield a row and the problems so far."""
    state = Soak(folder, seed)
    for number in range(count):
        state.experiment(number)
        if (number + 1) % every == 0 or number + 1 == count:
            row = state.row()
            yield row, state.problems


def main() -> None:
    """Run the soak that the command line asks for; the exit status says whether all went well."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=500, help="experiments")
    parser.add_argument("--results", type=Path, default=ROOT / "docs/data/soak.csv")
    parser.add_argument("--work", type=Path, default=ROOT / "build/soak")
    flags = parser.parse_args()
    # A shell's background process ignores SIGINT, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    begun, problems = time.monotonic(), []
    for row, problems in soak(flags.work, flags.seed, flags.count):
        append(flags.results, row, list(row))
        sys.stdout.write(f"{row}\n{time.monotonic() - begun:.0f} s, {len(problems)} problems\n")
        sys.stdout.flush()
    if not problems:
        shutil.rmtree(flags.work)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
