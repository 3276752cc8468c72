"""Fast tests that execute a line: measured once by coverage's contexts, test file by test file.

A test file is measured again after a change of it or of any file of the package that it executed.
Lines that run in subprocesses are not measured.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from tests.mutants.mutations import Span

ROOT = Path(__file__).parents[2]
STORE = ROOT / "build" / "mutants"
TOOLS = STORE / "tools"  # where `make mutants` installs coverage
MAP = STORE / "map"
# Of documentation and packaging: they execute nothing of the mutated packages by intention.
LEFT_OUT = {"test_docs", "test_docs_tables", "test_site", "test_bundle", "test_mlflow_ui"}


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a test process in ``folder``: one thread, the same examples."""
    own = {"PYTHONPATH": f"{folder}{os.pathsep}{TOOLS}", "OMP_NUM_THREADS": "1", "CI": "true"}
    return os.environ | own


def digest(file: Path) -> str:
    """Return a hash of a file's content; empty if there is none."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.exists() else ""


def measure(file: Path) -> None:
    """Run the fast tests of a test file under coverage; write which lines each executes."""
    known = MAP / f"{file.stem}.json"
    if known.exists():
        hashes = json.loads(known.read_text())["hashes"]
        if all(digest(ROOT / name) == value for name, value in hashes.items()):
            return
    data, seconds = MAP / f"{file.stem}.coverage", MAP / f"{file.stem}.seconds"
    settings = STORE / "coveragerc"
    settings.write_text("[run]\nsource = pipeline\n")
    coverage = ["-m", "coverage", "run", f"--rcfile={settings}", f"--data-file={data}"]
    pytest = ["-m", "pytest", "-q", "-p", "tests.mutants.contexts", str(file)]
    subprocess.run(
        [sys.executable, *coverage, *pytest],
        cwd=ROOT,
        env=environment(ROOT) | {"MUTANTS_DURATIONS": str(seconds)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    executed = [Path(name).relative_to(ROOT).as_posix() for name in _data(data).measured_files()]
    hashes = {name: digest(ROOT / name) for name in (*executed, file.relative_to(ROOT).as_posix())}
    known.write_text(json.dumps({"hashes": hashes, "seconds": json.loads(seconds.read_text())}))


def _data(file: Path):
    from coverage import CoverageData

    data = CoverageData(str(file))
    data.read()
    return data


class Visible:
    """The passed fast tests by the lines that they execute, and their seconds."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.seconds: dict[str, float] = {}
        self.by_line: dict[str, dict[int, set[str]]] = {}
        self.importers: dict[str, set[str]] = defaultdict(set)
        for file in files:
            own = json.loads((MAP / f"{file.stem}.json").read_text())["seconds"]
            self.seconds |= own
            data = _data(MAP / f"{file.stem}.coverage")
            for path in data.measured_files():
                self._add(Path(path).relative_to(ROOT).as_posix(), data.contexts_by_lineno(path))
            text = file.read_text()
            for module in _imported(text):
                self.importers[module] |= own.keys()

    def _add(self, path: str, contexts: dict[int, list[str]]) -> None:
        lines = self.by_line.setdefault(path, defaultdict(set))
        for line, names in contexts.items():
            lines[line].update(name for name in names if name)

    def tests(self, path: str, lines: Span, *, at_import: bool) -> list[str]:
        """Return the tests that execute any of the ``lines``, the cheapest first.

        A line that runs when its module is imported can be seen by every test of the files that
        import the module by name. Tests of such files come first in any case.
        """
        module = path.removesuffix(".py").replace("/", ".")
        direct = self.importers[module]
        names = set(direct) if at_import else set()
        for line in range(lines[0], lines[1] + 1):
            names |= self.by_line.get(path, {}).get(line, set())
        files = {name for name in names if "::" not in name}
        names |= {test for test in self.seconds if test.partition("::")[0] in files}
        found = [name for name in names if name in self.seconds]
        return sorted(found, key=lambda name: (name not in direct, self.seconds[name], name))


def _imported(text: str) -> set[str]:
    """Return the modules that a test file imports, and the parents whose members it may name."""
    import ast

    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("pipeline")}
