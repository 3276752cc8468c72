"""Property of settings: they are accepted and planned, or refused in one sentence with the key."""

import shlex
import shutil
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import yaml

from pipeline.config import experiment
from pipeline.errors import UserError
from pipeline.plan import build, dvc_yaml

ROOT = Path(__file__).parents[2]
SECONDS = 10  # of processor time
LONGEST = 2000  # characters of a sentence
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())


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
    parts |= {"seed"} if "seeds" in parts else set()
    parts |= {str(UserError(part)) for part in parts}  # as it is printed
    return [*sorted(part for part in parts if part.strip()), "is not valid YAML at line"]


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


def check_options(folder: Path, options: list[str], params: Path = ROOT / "params.yaml") -> str:
    """Plan the settings ``params`` after DVC has applied ``options`` of -S to a copy."""
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides

    path = folder / "params.yaml"
    shutil.copyfile(params, path)
    try:
        with limit():
            apply_overrides(path, options)
    except DvcException:
        return "refused by DVC"
    except Exception as error:  # DVC's own, too: nothing of this project has run
        return f"refused by DVC ({type(error).__name__})"
    return planned(path, [])
