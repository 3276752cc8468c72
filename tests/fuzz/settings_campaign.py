"""Campaign over settings: examples drawn by hypothesis, in process and through DVC's commands."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from pipeline.config import experiment
from tests.fuzz import grammar
from tests.fuzz.settings import (
    ROOT,
    TooLongError,
    check_options,
    check_recipe,
    check_sentence,
    check_text,
    check_values,
    where,
)
from tests.project import Project

Outcomes = tuple[dict[str, Counter[str]], dict[str, str]]
PATIENCE = 600  # seconds of one command of DVC on a busy machine


def strategies(folder: Path) -> dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], str]]]:
    """Return examples and the check of each kind of input, by name."""
    text = (ROOT / "params.yaml").read_bytes()
    recipe = st.tuples(st.sampled_from(sorted(experiment.recipes())), grammar.edits())
    return {
        "params.yaml, values": (grammar.edits(), lambda v: check_values(folder, v)),
        "recipes, values": (recipe, lambda v: check_recipe(folder, *v)),
        "params.yaml, text": (grammar.damage(text), lambda v: check_text(folder, v)),
        "-S": (grammar.options(), lambda v: check_options(folder, v)),
    }


def in_process(folder: Path, seed: int, count: int) -> Outcomes:
    """Return outcomes by kind of input, and an example of each finding."""
    outcomes: dict[str, Counter[str]] = {}
    findings: dict[str, str] = {}
    kinds = strategies(folder)
    for kind, (examples, check) in kinds.items():
        outcomes[kind] = Counter()
        sys.stderr.write(f"{kind}\n")
        _search(kind, examples, check, (seed, -(-count // len(kinds))), outcomes[kind], findings)
    return outcomes, findings


def _search(
    kind: str,
    examples: st.SearchStrategy[Any],
    check: Callable[[Any], str],
    extent: tuple[int, int],
    counts: Counter[str],
    findings: dict[str, str],
) -> None:
    """Check as many ``examples`` as ``extent`` says, after its seed; go on after a finding."""

    @hypothesis.seed(extent[0])
    @hypothesis.settings(
        max_examples=extent[1],
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(examples)
    def run(value: Any) -> None:
        try:
            counts[check(value)] += 1
        except (Exception, TooLongError) as error:
            counts["finding"] += 1
            about = f"{kind}: {where(error)} {str(error)[:60]}"
            findings.setdefault(about, f"{value!r:.600}\n    {error!s:.600}")

    run()


def through_dvc(folder: Path, seed: int, count: int) -> Outcomes:
    """Run ``dvc exp run -S`` with ``count`` refused options, and ``dvc repro`` with the same."""
    project = Project.create(folder / "project")
    counts: Counter[str] = Counter()
    findings: dict[str, str] = {}

    def check(options: list[str]) -> str:
        if counts["refused"] + counts["finding"] >= count:
            return "not run"
        if any("\ud800" <= each <= "\udfff" for each in "".join(options)):
            return "no command line, not run"  # half of a character
        with mock.patch.object(experiment, "RECIPES", project.root / "recipes"):
            expected = check_options(folder, options, project.root / "params.yaml")
        if expected != "refused":
            return f"{expected}, not run"
        words = [word for option in options for word in ("-S", option)]
        try:
            _refused(project, "dvc", "exp", "run", *words)
            _refused(project, "dvc", "repro")  # the values are in params.yaml now
        finally:
            project.run("git", "checkout", "-q", ".")
        return "refused"

    _search("dvc exp run -S", grammar.options(), check, (seed, 40 * count), counts, findings)
    return {"dvc exp run -S, dvc repro": counts}, findings


def _refused(project: Project, *command: str) -> None:
    """Check that ``command`` fails with one sentence and without a traceback."""
    done = subprocess.run(
        command,
        cwd=project.root,
        env=project.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode != 0, said
    assert "Traceback" not in said, said
    sentences = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1, said
    check_sentence(sentences[0].removeprefix("error: "), [])
