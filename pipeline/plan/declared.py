"""Collects what the file of a method declares for the report.

    LABEL = "IMP {m}x longer"        the method's name for readers; {m}: the number of candidates
    LOOK = ("green", "^", "--")      colour, marker and line in figures, and the marker's size
    PAPER = {"swa": "IMP+SWA"}       its name in the paper's tables, pipeline/report/paper/swa.csv
    PAPER_SETTINGS = {"m": (2, 3)}   the values of a key of params.yaml that the paper's rows have
    BASELINES = ("imp_mx", "imp")    the methods that a soup is compared with, the main one first

All are optional. A method that plans several lineages, as sms_uniform and sms_greedy, has the place
``{variant}`` in its LABEL: it declares LOOK and PAPER by variant, and in NAMES the variants whose
names for readers differ from their keys.
"""

from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from pipeline import registry


@dataclass(frozen=True)
class Declared:
    """The declarations of one method."""

    label: str | None = None
    look: tuple[Any, ...] | None = None
    paper: dict[str, str] = field(default_factory=dict)
    paper_settings: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    baselines: tuple[str, ...] = ()


@cache
def declared(method: str) -> Declared:
    """Return what the file of ``method`` declares; nothing if it has no file."""
    for name in reversed(registry.names("plan/methods")):
        if f"{method}_".startswith(f"{name}_"):
            module, variant = _module(name), method[len(name) + 1 :]
            label = getattr(module, "LABEL", None)
            if variant and not _has_variants(module):
                continue
            written = getattr(module, "NAMES", {}).get(variant, variant.replace("_", " "))
            return Declared(
                label and label.replace("{variant}", written).strip(),
                _declaration(module, "LOOK", variant, None),
                _declaration(module, "PAPER", variant, {}),
                getattr(module, "PAPER_SETTINGS", {}),
                getattr(module, "BASELINES", ()),
            )
    return Declared()


def paper_methods(table: str) -> list[str]:
    """Return the methods that the paper's ``table`` has, in the order of their files."""
    methods = []
    for name in registry.names("plan/methods"):
        module = _module(name)
        variants = getattr(module, "PAPER", {}) if _has_variants(module) else {}
        methods += [f"{name}_{variant}" for variant in variants] or [name]
    return [method for method in methods if table in declared(method).paper]


def _module(name: str) -> ModuleType:
    return import_module(f"pipeline.plan.methods.{name}")


def _has_variants(module: ModuleType) -> bool:
    return "{variant}" in (getattr(module, "LABEL", None) or "")


def _declaration(module: ModuleType, name: str, variant: str, default: Any) -> Any:
    value = getattr(module, name, default)
    return value.get(variant, default) if value and _has_variants(module) else value
