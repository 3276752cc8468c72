"""Runs the trials that the file of results lacks: ``python -m tests.faults``.

Each trial copies a small project, disturbs a run of it, runs it again without a fault, and compares
the lock file, the report, the artifacts, the cache and MLflow's runs with an undisturbed run.
"""

import argparse
import csv
import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

from pipeline.bundle import origin
from tests.faults import check, processes, sentences, stores
from tests.faults.draw import Fault, draw
from tests.faults.power import available
from tests.faults.trial import REPRO, Trial
from tests.faults.workspace import Base, base
from tests.project import ROOT

FIELDS = ("seed", "trial", "kind", "details", "reached", "status", "said", "outcome", "seconds")
FIELDS = (*FIELDS, "date", "commit")
ROOT_ONLY = {"power loss", "full disk", "read-only cache"}
KINDS = {
    "kill at a random time": processes.kill_at_random_time,
    "kill at a write": processes.kill_at_write,
    "power loss": processes.power_loss,
    "full disk": stores.full_disk,
    "read-only cache": stores.read_only,
    "bit flipped": stores.bit_flipped,
    "clock set back": processes.clock,
    "two runs at once": processes.two_runs,
    "remote breaks off": stores.remote,
    "out of memory": processes.out_of_memory,
}
SHOWN = 4  # problems of a trial that its row names
GOOD = "as undisturbed"
Row = dict[str, object]


def run(fault: Fault, base: Base, folder: Path) -> Row:
    """Run a trial in ``folder``, and return its row without its numbers."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    trial, begun, said = Trial(folder, base, fault), time.monotonic(), ""
    if fault.kind in ROOT_ONLY and not available():
        return {"reached": "no", "outcome": "needs root, mount and mkfs.ext4"}
    try:
        KINDS[fault.kind](trial)
        heard = {"reached": trial.reached, "driver": trial.has_run("driver")}
        said = sentences.said(fault, trial.first, **heard)
        problems = [*trial.problems, *sentences.missing(fault, trial.first, **heard)]
        problems += _judge(trial)
    except Exception as error:  # the row says so, and the other trials go on
        problems = [f"the trial itself failed: {error!r}"[:300]]
    finally:
        trial.end()
    first = getattr(trial, "first", None)
    if not problems:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "reached": "yes" if trial.reached else "no",
        "status": first.status if first else "",
        "said": said.replace(f"{folder}/w/p/", "").replace(str(folder), "").replace(f"{ROOT}/", ""),
        "outcome": _short(problems) or _good(trial),
        "seconds": round(time.monotonic() - begun),
    }


def _short(problems: list[str]) -> str:
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return "; ".join([*problems[:SHOWN], *more])


def _good(trial: Trial) -> str:
    return f"{GOOD}, after `verify`" if trial.advised else GOOD


def _judge(trial: Trial) -> list[str]:
    """Run once more without a fault, and return what is wrong after it, or was before."""
    first, workspace, base = trial.first, trial.workspace, trial.base
    problems = []
    if trial.fault.kind not in {"bit flipped", "remote breaks off"}:
        problems += check.disturbed(workspace, base, first)
    workspace.control.joinpath("output").rename(workspace.control / "output-disturbed")
    workspace.plan()
    second = workspace.run(*REPRO)
    if second.status and not check.TRACEBACK.search(second.output):
        stores.follow(workspace, workspace.run(*stores.VERIFY))
        second = workspace.run(*REPRO)
        trial.advised = True
    if again := trial.kept & check.ran(second.output):
        problems.append(f"{len(again)} finished stages ran again, such as {min(again)}")
    problems += check.settled(workspace, base, second, collected=trial.collected)
    if trial.tracked:
        problems += check.mlflow(workspace, base)
    return problems


def campaign(arguments: argparse.Namespace, trials: Sequence[int]) -> list[Row]:
    """Run ``trials`` and append their rows to the file of results as they end."""
    work: Path = arguments.work
    commit = origin.commit(ROOT)
    known = base(work / "base")
    lock, rows = threading.Lock(), []
    limit = time.monotonic() + arguments.hours * 3600

    def one(number: int) -> None:
        if time.monotonic() > limit:
            return
        fault = draw(arguments.seed, number)
        facts = {"seed": arguments.seed, "trial": number, "kind": fault.kind, "details": str(fault)}
        facts |= {"date": date.today(), "commit": commit}
        row = facts | run(fault, known, work / f"trial-{number}")
        with lock:
            rows.append(row)
            append(arguments.results, row)
            sys.stdout.write(" | ".join(str(row.get(name, "")) for name in FIELDS[1:]) + "\n")
            sys.stdout.flush()

    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(one, trials))
    return rows


def append(file: Path, row: Row, fields: Sequence[str] = FIELDS) -> None:
    """Append a row to the file of results."""
    new = not file.exists()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fields, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def done(file: Path, seed: int) -> set[int]:
    """Return the trials of a seed that the file of results has."""
    if not file.exists():
        return set()
    with file.open(newline="", encoding="utf-8") as stream:
        return {int(row["trial"]) for row in csv.DictReader(stream) if int(row["seed"]) == seed}


def main() -> None:
    """Run the trials that the command line names; the exit status says whether all went well."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trial", type=int, nargs="+", help="these trials, known or not")
    parser.add_argument("--trials", type=int, default=200, help="the first N trials of the seed")
    parser.add_argument("--kind", help="only trials of this kind")
    parser.add_argument("--hours", type=float, default=2.0, help="start no trial after that")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2, help="trials at once")
    parser.add_argument("--results", type=Path, default=ROOT / "docs/data/faults.csv")
    parser.add_argument("--work", type=Path, default=ROOT / "build/faults")
    arguments = parser.parse_args()
    # A shell's background process ignores SIGINT, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if arguments.trial:  # a replay is shown, and not recorded
        arguments.results = arguments.work / "replayed.csv"
        trials = arguments.trial
    else:
        known = done(arguments.results, arguments.seed)
        trials = [number for number in range(arguments.trials) if number not in known]
    if arguments.kind:
        trials = [n for n in trials if draw(arguments.seed, n).kind == arguments.kind]
    rows = campaign(arguments, trials)
    for outcome, count in Counter(str(row["outcome"]) for row in rows).items():
        sys.stdout.write(f"{count} {outcome}\n")
    sys.exit(any(not str(row["outcome"]).startswith(GOOD) for row in rows))


if __name__ == "__main__":
    main()
