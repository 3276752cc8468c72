"""Property of settings: they are accepted and planned, or refused in one sentence with the key."""

import shlex
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import hypothesis
import yaml
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from pipeline.config import experiment
from pipeline.errors import UserError
from pipeline.plan import build, dvc_yaml
from tests.fuzz import grammar

ROOT = Path(__file__).parents[2]
SECONDS = 10  # of processor time
LONGEST = 2000  # characters of a sentence
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
DVC_REFUSES = ("DvcException", "InvalidArgumentError", "ConfigError", "ParameterError")


class TooLongError(BaseException):
    """The property took more than `SECONDS`."""


@contextmanager
def limit(seconds: int = SECONDS) -> Iterator[None]:
    """Interrupt the block after ``seconds``."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def where(error: BaseException) -> str:
    """Return the type of an exception and the last line of this project that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/pipeline/" in f.filename]
    line = f"{Path(ours[-1].filename).relative_to(ROOT)}:{ours[-1].lineno}" if ours else "?"
    return f"{type(error).__name__} at {line}"


def put(values: dict[str, Any], edits: dict[str, Any]) -> dict[str, Any]:
    """Return ``values`` with those of ``edits`` at their dotted keys."""
    result = {key: dict(v) if isinstance(v, dict) else v for key, v in values.items()}
    for key, value in edits.items():
        *sections, last = key.split(".")
        target: Any = result
        for section in sections:
            if not isinstance(target.get(section), dict):
                target[section] = {}
            target = target[section]
        target[last] = value
    return result


def planned(path: Path, keys: list[str]) -> str:
    """Return ``planned`` or ``refused`` for the file at ``path``; anything else is an error.

    Args:
        path: of params.yaml.
        keys: of which the sentence must name one.

    Raises:
        AssertionError: the sentence is none, or the graph is not what the plan says.
    """
    try:
        with limit():
            params = experiment.load(path)
            plan = build.build(params)
            graph = yaml.load(dvc_yaml.render(plan), yaml.CSafeLoader)["stages"]
    except UserError as error:
        check_sentence(str(error), keys)
        return "refused"
    assert graph.keys() == plan.nodes.keys()
    for name, stage in graph.items():
        words = [word for item in dvc_yaml.command(plan.nodes[name]) for word in shlex.split(item)]
        assert shlex.split(stage["cmd"]) == words, (name, stage["cmd"])
        assert "${" not in stage["cmd"], (name, "DVC fills in what follows ${")
    return "planned"


def check_sentence(sentence: str, keys: list[str]) -> None:
    """Check that ``sentence`` is one line of words that names one of ``keys``."""
    assert sentence, "no sentence"
    assert len(sentence.splitlines()) == 1, f"lines: {sentence!r}"
    assert sentence.isprintable(), f"characters: {sentence!r}"
    assert len(sentence) < LONGEST, f"{len(sentence)} characters: {sentence[:200]!r}"
    assert not keys or any(key in sentence for key in keys), f"no key of {keys}: {sentence!r}"


def named(edits: dict[str, Any]) -> list[str]:
    """Return what a sentence about ``edits`` may name: their keys, or the last part of one."""
    parts = {part for key in edits for part in (key, key.rpartition(".")[2], key.split(".")[0])}
    return sorted(part for part in parts if part.strip())


def check_values(folder: Path, edits: dict[str, Any]) -> str:
    """Plan the project's params.yaml with ``edits``."""
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(put(PARAMS, edits), allow_unicode=True), encoding="utf-8")
    return planned(path, [] if any(not key.strip() for key in edits) else named(edits))


def check_recipe(folder: Path, recipe: str, edits: dict[str, Any]) -> str:
    """Plan with a recipe that has ``edits``."""
    rooms = folder / "recipes"
    if not rooms.exists():
        shutil.copytree(ROOT / "recipes", rooms)
    values = yaml.safe_load((ROOT / "recipes" / f"{recipe}.yaml").read_text())
    text = yaml.safe_dump(put(values, edits), allow_unicode=True)
    (rooms / f"{recipe}.yaml").write_text(text, encoding="utf-8")
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(put(PARAMS, {"recipe": recipe})))
    try:
        with mock.patch.object(experiment, "RECIPES", rooms):
            return planned(path, [] if any(not key.strip() for key in edits) else named(edits))
    finally:
        shutil.copyfile(ROOT / "recipes" / f"{recipe}.yaml", rooms / f"{recipe}.yaml")


def check_text(folder: Path, content: bytes) -> str:
    """Plan a params.yaml of any bytes; the sentence names the file."""
    path = folder / "params.yaml"
    path.write_bytes(content)
    return planned(path, ["params.yaml", "recipes/"])


def check_options(folder: Path, options: list[str]) -> str:
    """Plan the project's params.yaml after DVC has applied ``options`` of -S."""
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides

    path = folder / "params.yaml"
    shutil.copyfile(ROOT / "params.yaml", path)
    try:
        with limit():
            apply_overrides(path, options)
    except (DvcException, ValueError, NotImplementedError):  # DVC's own refusals
        return "refused by DVC"
    except Exception as error:
        assert not any("/pipeline/" in f.filename for f in traceback.extract_tb(error.__traceback__))
        return f"refused by DVC ({type(error).__name__})"
    return planned(path, [])


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


def campaign(folder: Path, seed: int, count: int) -> tuple[dict[str, Counter[str]], dict[str, str]]:
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
            findings.setdefault(about, f"{value!r:.600}\n    {str(error):.600}")

    run()
