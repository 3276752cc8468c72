"""Mutate the algorithms, the loop, the planner and the driver, and count what fast tests notice.

    python -m tests.mutants --sample 200 --seed 0        (as `make mutants` does)

Each mutant of the sample is written to a copy of the checkout, in which the fast tests that execute
the changed line run until one fails. Results are appended to build/mutants/results.jsonl: an
interrupted run continues, and a survivor is tried again only if its tests have changed.
"""

import argparse
import fnmatch
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Queue
from typing import Any

from tests.mutants.mutations import Mutation, walk_valid
from tests.mutants.visible import LEFT_OUT, MAP, ROOT, STORE, Visible, digest, environment, measure

PACKAGES = ("prune", "soup", "schedules", "sparsify", "train", "evaluate", "storage", "plan", "run")
# The first two need a Ray cluster and a GPU, for which there are tests of other kinds. The third is
# a table of 400 numbers, each of which tests/test_constants.py has too.
LEFT_ALONE = (
    "pipeline/run/ray_*.py",
    "pipeline/train/cuda_graph.py",
    "pipeline/evaluate/corruptions/constants.py",
)
CAP = 120  # seconds of tests for one mutant, by their measured times
STALLED = 150  # seconds without the end of a test, after which it counts as failed
NO_SUCH_TEST = 4  # pytest's exit status, also where a mutant changes a test's parameters
RESULTS = STORE / "results.jsonl"

parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
parser.add_argument("--sample", type=int, default=200, help="how many mutants; 0: all")
parser.add_argument("--seed", default="0", help="of the sample")
parser.add_argument("--jobs", type=int, default=2, help="mutants at once")
parser.add_argument("--only", default="pipeline/*", help="a pattern of files")
parser.add_argument("--list", action="store_true", help="print the known results alone")


@dataclass(frozen=True)
class Mutant:
    """A mutation of a file; ``key`` names it, and stays when other lines are edited."""

    path: str
    mutation: Mutation
    line: int
    text: str
    key: str


def mutants(pattern: str) -> Iterator[Mutant]:
    """Yield all mutants of the packages."""
    files = (file for name in PACKAGES for file in (ROOT / "pipeline" / name).rglob("*.py"))
    for file in sorted(files):
        path, source = file.relative_to(ROOT).as_posix(), file.read_text()
        left_alone = any(fnmatch.fnmatch(path, each) for each in LEFT_ALONE)
        if not fnmatch.fnmatch(path, pattern) or left_alone:
            continue
        rows, seen = source.splitlines(), Counter[str]()
        for mutation in walk_valid(source):
            line = source.count("\n", 0, mutation.start) + 1
            text = rows[line - 1].strip()
            key = f"{path}: {text}: {mutation.old} -> {mutation.new}"
            seen[key] += 1
            yield Mutant(path, mutation, line, text, f"{key} ({seen[key]})")


def sample(every: Sequence[Mutant], count: int, seed: str) -> list[Mutant]:
    """Return ``count`` mutants of least hash: most stay in the sample when other code changes."""
    ranked = sorted(every, key=lambda m: hashlib.sha256(f"{seed} {m.key}".encode()).digest())
    return ranked[: count or None]


def known() -> dict[str, dict[str, Any]]:
    """Return the last result of each mutant, by its key."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return {result["key"]: result for result in map(json.loads, lines)}


class Copy:
    """A copy of the checkout, and a process that runs pytest in it."""

    def __init__(self, number: int) -> None:
        self.folder, self.time = STORE / f"copy-{number}", 0
        shutil.rmtree(self.folder, ignore_errors=True)
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True)
        for name in filter(None, names.stdout.split("\0")):
            if (ROOT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.folder / name)
        self.tests, self.output = self.folder / "build/tests.txt", self.folder / "build/output.txt"
        self.tests.parent.mkdir()
        self.worker = subprocess.Popen(
            [sys.executable, "-W", "ignore", "tests/mutants/worker.py"],
            cwd=self.folder,
            env=environment(self.folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libraries that end with it print what they leak
            text=True,
        )

    def write(self, path: str, text: str) -> None:
        """Write a source with a time of its own, by which Python knows compiled code as old."""
        (self.folder / path).write_text(text)
        self.time += 1
        os.utime(self.folder / path, (self.time, self.time))

    def run(self, tests: Sequence[str], seconds: float) -> str | None:
        """Return the first of the tests that fails, or "timeout"; None if all pass."""
        self.tests.write_text("\n".join(tests) + "\n")
        arguments = ["-x", "-q", "-p", "no:cacheprovider", f"@{self.tests}"]
        assert self.worker.stdin is not None
        assert self.worker.stdout is not None
        self.worker.stdin.write(json.dumps([arguments, str(self.output), seconds]) + "\n")
        self.worker.stdin.flush()
        status = json.loads(self.worker.stdout.readline())
        if status == 0:
            return None
        if status is None:
            return "timeout"
        if status == NO_SUCH_TEST and any("::" in test for test in tests):
            return self.run(sorted({test.partition("::")[0] for test in tests}), seconds)
        lines = self.output.read_text(errors="replace").splitlines()
        failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
        if not failed:
            return f"pytest ended with {status}"
        return failed[0].partition(" ")[2].partition(" - ")[0]


def mistaken(keys: Sequence[str], visible: Visible, copy: Copy) -> str | None:
    """Return a test that caught a mutant and fails without one too, if there is such a test."""
    results = known()
    tests = {results[key]["by"] for key in keys if key in results} & visible.seconds.keys()
    return copy.run(sorted(tests), STALLED) if tests else None


def affordable(tests: Sequence[str], visible: Visible) -> list[str]:
    """Return the first ``tests`` that take `CAP` seconds together."""
    chosen, total = [], 0.0
    for test in tests:
        total += visible.seconds[test]
        if chosen and total > CAP:
            break
        chosen.append(test)
    return chosen


def attempt(
    mutant: Mutant, visible: Visible, copies: "Queue[Copy]", before: dict[str, Any]
) -> None:
    """Run the tests of one mutant and append the result, unless it is known."""
    mutation = mutant.mutation
    every = visible.tests(mutant.path, mutation.lines, at_import=mutation.at_import)
    tests = affordable(every, visible)
    files = sorted({test.partition("::")[0] for test in tests})
    basis = hashlib.sha256("".join([*tests, *(digest(ROOT / f) for f in files)]).encode())
    result = {"key": mutant.key, "line": mutant.line, "tests": basis.hexdigest()[:16]}
    if before and (before["by"] or before["tests"] == result["tests"]):
        return
    copy, by = copies.get(), None
    if tests:
        source = (ROOT / mutant.path).read_text()
        copy.write(mutant.path, mutation.apply(source))
        by = copy.run(tests, STALLED)
        copy.write(mutant.path, source)
    copies.put(copy)
    with RESULTS.open("a") as file:
        file.write(json.dumps(result | {"by": by, "of": len(tests)}) + "\n")
    print(f"{time.strftime('%X')} {'caught  ' if by else 'SURVIVED'} {mutant.key}", flush=True)  # noqa: T201


def report(chosen: Sequence[Mutant]) -> None:
    """Print the score by package, and the survivors."""
    results = known()
    done = [(mutant, results[mutant.key]) for mutant in chosen if mutant.key in results]
    totals, caught = Counter(), Counter()
    for mutant, result in done:
        name = mutant.path.split("/")[1]
        totals[name] += 1
        caught[name] += bool(result["by"])
    for name in sorted(totals):
        print(f"{name:10} {caught[name]:4} of {totals[name]:4}")  # noqa: T201
    share = f"{caught.total() / max(1, totals.total()):.1%}"
    print(f"{'all':10} {caught.total():4} of {totals.total():4}  {share} caught")  # noqa: T201
    for mutant, result in done:
        if not result["by"]:
            change = f"{mutant.mutation.old!r} -> {mutant.mutation.new!r}"
            place = f"{mutant.path}:{mutant.line}"
            print(f"survived {result['of']:4} tests: {place}: {change} in: {mutant.text}")  # noqa: T201


def main() -> None:
    """Measure what each test executes, try the sample, and report."""
    flags = parser.parse_args()
    MAP.mkdir(parents=True, exist_ok=True)
    chosen = sample(list(mutants(flags.only)), flags.sample, flags.seed)
    if not flags.list:
        sys.path.append(str(STORE / "tools"))
        files = [f for f in sorted(ROOT.glob("tests/test_*.py")) if f.stem not in LEFT_OUT]
        with ThreadPoolExecutor(flags.jobs) as pool:
            list(pool.map(measure, files))
            visible, copies, before = Visible(files), Queue[Copy](), known()
            for number in range(flags.jobs):
                copy = Copy(number)
                if copy.run(["tests/test_rounding.py"], STALLED):
                    sys.exit(f"error: pytest does not run in {copy.folder}: see {copy.output}")
                copies.put(copy)
            attempts = [
                pool.submit(attempt, each, visible, copies, before.get(each.key, {}))
                for each in chosen
            ]
            for each in attempts:
                each.result()
        if test := mistaken([each.key for each in chosen], visible, copies.get()):
            sys.exit(f"error: {test} fails without a mutant: mend it and remove its results")
    report(chosen)


if __name__ == "__main__":
    main()
