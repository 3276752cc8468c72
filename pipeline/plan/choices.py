"""Lists the names that keys of params.yaml take beside methods and studies, each with a line."""

import ast
import inspect
import re

from pipeline import registry
from pipeline.schedules import retrain_lr
from pipeline.soup import build as rules

WEIGHTS = "Single weights, ranked by prune.criterion and spread over layers by prune.allocation."


def choices() -> dict[str, dict[str, str]]:
    """Return the names that each key takes, and the first line about each."""
    return {
        "merge, how sms averages": rules.descriptions(),
        "prune.criterion": _members("prune/criteria"),
        "prune.allocation": _members("prune/allocations"),
        "prune.structure": {
            "N:M": _line("prune/semi_structured.py"),
            "filters": _line("prune/filters.py"),
            "weights": WEIGHTS,
        },
        "retrain.schedule": _schedules(),
        "retrain.average": {name: _line(f"train/{name}.py") for name in ("ema", "swa")},
        "retrain.sam": {name: _line(f"train/{name}.py") for name in ("s2sam", "sam")},
        "retrain.distill, from 0 to 1": {"weight": _line("train/distill.py")},
        "export": _members("export/formats"),
    }


def _members(room: str) -> dict[str, str]:
    """Return the first line of each member of a ``room`` of the registry."""
    modules = {name: registry.module_name(room, name, room) for name in registry.names(room)}
    files = {name: module.removeprefix("pipeline.") for name, module in modules.items()}
    return {name: _line(f"{file.replace('.', '/')}.py") for name, file in files.items()}


def _line(file: str) -> str:
    """Return the first line of a file's docstring, without importing it: torch takes seconds."""
    text = ast.get_docstring(ast.parse((registry.ROOT / file).read_bytes())) or ""
    return text.partition("\n")[0]


def _schedules() -> dict[str, str]:
    """Return the table in the docstring of `pipeline.schedules.retrain_lr.learning_rates`."""
    text = inspect.getdoc(retrain_lr.learning_rates) or ""
    table = re.findall(r"^ {4}([A-Z]+) {2,}(\S.*?) {2,}(\S.*)$", text, flags=re.MULTILINE)
    return {name: f"{about} ({source})" for name, about, source in table}
