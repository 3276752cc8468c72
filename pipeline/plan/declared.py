"""Reads the constants that a method's file declares for the report.

    LABEL = "IMP {m}x longer"        the name that readers see; {m}: the number of candidates
    LOOK = ("green", "^", "--")      colour, marker and line in figures, and the marker's size
    PAPER = ("IMP_mx", "")           the method and the variant in the paper's tables
    BASELINES = ("imp",)             the methods that a soup is compared with

All are optional. A method that plans several lineages, as sms_uniform and sms_greedy, declares
looks and paper names by lineage, and in NAMES how a lineage is written where ``{variant}`` stands.
"""

from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

from pipeline import registry


class Declared(NamedTuple):
    """The constants of a method's file."""

    label: str | None = None
    look: tuple[Any, ...] | None = None
    paper: tuple[str, str] | None = None
    baselines: tuple[str, ...] = ()


@cache
def declared(method: str) -> Declared:
    """Return the constants of the file that plans ``method``; empty where there is no such file."""
    for name in reversed(registry.names("plan/methods")):
        if f"{method}_".startswith(f"{name}_"):
            module = import_module(f"pipeline.plan.methods.{name}")
            label, variant = getattr(module, "LABEL", None), method[len(name) + 1 :]
            if variant and "{variant}" not in (label or ""):
                continue
            written = getattr(module, "NAMES", {}).get(variant, variant.replace("_", " "))
            return Declared(
                label and label.replace("{variant}", written).strip(),
                _of(module, "LOOK", variant),
                _of(module, "PAPER", variant),
                getattr(module, "BASELINES", ()),
            )
    return Declared()


def _of(module: ModuleType, name: str, variant: str) -> Any:
    value = getattr(module, name, None)
    return value.get(variant) if isinstance(value, dict) else value
