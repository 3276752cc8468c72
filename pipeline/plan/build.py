"""Builds the plan of all methods and studies that params.yaml names."""

from importlib import import_module
from types import ModuleType

from pipeline import registry
from pipeline.config.experiment import Experiment
from pipeline.plan import budget
from pipeline.plan.plan import Plan
from pipeline.plan.planner import Planner
from pipeline.plan.studies.base import Study


def build(params: Experiment) -> Plan:
    """Return the plan of ``params``, in which each piece of work is one stage.

    Per seed the dense network comes first, then the stages of each method, in the order of the
    methods' names, so that an edit of the list moves nothing. Studies come last and share the
    stages that the methods have added.
    """
    plan = Plan(params)
    modules = {method: _module("methods", method) for method in sorted(params.methods)}
    lengths = budget.lengths(plan, {method: module.plan for method, module in modules.items()})
    for seed in params.seeds:
        work = Planner(plan, seed)
        work.report(0, work.pretrain())
        plan.sections[""] = "the data, the dense network, and the phase 1 that all methods share"
        for method, module in modules.items():
            module.plan(lengths[method].planner(work) if lengths else work)
            for lineage in plan.lineages - plan.sections.keys():
                plan.sections[lineage] = _about(module)
    for study in sorted(params.studies):
        _study(plan, study)
    return plan


def _study(plan: Plan, name: str) -> None:
    """Add the stages of a study, and label all stages that its results depend on."""
    module, before = _module("studies", name), set(plan.nodes)
    for seed in plan.params.seeds:
        module.plan(Study(plan, seed, name))
    plan.sections[f"study {name}"] = _about(module)
    for added in plan.nodes.keys() - before:
        plan.nodes[added].study, plan.nodes[added].lineage = name, f"study {name}"
    used = {
        node
        for point in plan.points
        if point.study == name
        for node in (point.model, *point.candidates, *point.nodes.values())
    }
    for node in reversed(plan.nodes.values()):  # inputs come first
        if node.name in used:
            used.update(node.inputs)
            others = node.labels.get("studies")
            node.labels["studies"] = f"{others},{name}" if others else name


def methods() -> dict[str, str]:
    """Return the first line about each method, by name."""
    return {name: _about(_module("methods", name)) for name in registry.names("plan/methods")}


def studies() -> dict[str, str]:
    """Return the first line about each study, by name."""
    return {name: _about(_module("studies", name)) for name in registry.names("plan/studies")}


def _module(room: str, name: str) -> ModuleType:
    return import_module(f"pipeline.plan.{room}.{name}")


def _about(module: ModuleType) -> str:
    return (module.__doc__ or "").strip().splitlines()[0]
