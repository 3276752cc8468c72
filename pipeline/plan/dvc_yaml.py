"""Writes the plan as stages/dvc.yaml, which DVC runs and people read."""

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pipeline.plan.dependencies import closure
from pipeline.plan.plan import Plan, Stage, artifact
from pipeline.storage.durable_files import durable_file

HEADER = """\
# Generated from params.yaml by `python -m pipeline plan`: edit that file, not this one.
# Every piece of work is one stage, whoever shares it; `dvc repro` at the root runs them side by
# side, and `dvc repro stages/dvc.yaml` one by one, with the same results.
stages:
"""

_PLAIN = re.compile(r"[A-Za-z_][\w.-]*(/[\w.-]+)+", re.ASCII)  # a path that needs no quotes


def write(plan: Plan, path: Path) -> None:
    """Write ``plan`` to ``path``; a file that is the same already stays untouched."""
    if not is_written(plan, path):
        with durable_file(path) as new:
            new.write_text(render(plan), encoding="utf-8")


def is_written(plan: Plan, path: Path) -> bool:
    """Return whether the file ``path`` is that of ``plan``."""
    return path.exists() and path.read_text(encoding="utf-8") == render(plan)


def render(plan: Plan) -> str:
    """Return the text of ``stages/dvc.yaml``: a section a method, its stages sorted by name."""
    sections: dict[str, list[Stage]] = {}
    for node in plan.nodes.values():
        sections.setdefault(node.lineage, []).append(node)
    parts = [HEADER]
    for lineage in sorted(sections):
        about = plan.sections[lineage]
        parts.append(f"\n  # {lineage}: {about}\n" if lineage else f"\n  # {about}\n")
        parts.extend(_stage(node) for node in sorted(sections[lineage], key=lambda n: n.name))
    return "".join(parts)


def dependencies(node: Stage) -> list[str]:
    """Return the dependencies of ``node``: code, data outside the graph, other artifacts."""
    code = closure(f"stages.{node.script}", *node.modules)
    return [*code, *node.files, *(artifact(name) for name in sorted(set(node.inputs)))]


def command(node: Stage) -> list[str]:
    """Return the words of the node's command, one flag with its values an item."""
    words = [f"stages/run {node.script}"]
    for flag, value in node.arguments.items():
        values = [] if value is True else value if isinstance(value, list) else [value]
        option = f"--{flag.replace('_', '-')}"
        words.append(shlex.join([option, *(_text(item) for item in values)]))
    return [*words, f"--out {node.out}"]


def _stage(node: Stage) -> str:
    lines = "\n      ".join(command(node))
    needed = dependencies(node)
    deps = "".join(map(_item, needed))
    code = [path for path in needed if path.startswith(("../", "/")) and path not in node.files]
    meta = _meta([*node.files, *node.unwatched, *node.outside, *code])
    body = f"    wdir: ..\n    deps:\n{deps}    outs:\n{_item(node.out)}{meta}"
    return f"  {node.name}:\n    cmd: >-\n      {lines}\n{body}"


def _meta(outside: list[str]) -> str:
    """Return the lines that list data and code outside, for engines; DVC hashes no `meta`."""
    text = yaml.safe_dump({"meta": {"outside": outside}}) if outside else ""
    return "".join(f"    {line}\n" for line in text.splitlines())


@cache
def _item(path: str) -> str:
    """Return a line of a list; PyYAML, which is slow, quotes paths that need it."""
    text = f"- {path}\n" if _PLAIN.fullmatch(path) else yaml.safe_dump([path])
    return "".join(f"    {line}\n" for line in text.splitlines())


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)
