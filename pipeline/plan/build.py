"""From parameters to the plan of everything that has to be done."""

from importlib import import_module
from types import ModuleType

from pipeline.params import Experiment, modules
from pipeline.plan.nodes import Plan
from pipeline.plan.work import Work


def build(params: Experiment) -> Plan:
    """Write down every stage that ``params`` asks for, each piece of work once.

    The dense network is measured always, and each of ``params.methods`` adds its own stages,
    per seed, in the order of their names: an edit of the list moves nothing.
    """
    plan = Plan(params)
    for seed in params.seeds:
        work = Work(plan, seed)
        work.report(0, work.pretrain())
        plan.sections[""] = "the data, the dense network, and the phase 1 that all methods share"
        for method in sorted(params.methods):
            module = _module(method)
            module.plan(work)
            for lineage in {node.lineage for node in plan.nodes.values()} - plan.sections.keys():
                plan.sections[lineage] = _about(module)
    return plan


def methods() -> dict[str, str]:
    """Return the first line of what each method is, by name."""
    return {name: _about(_module(name)) for name in modules("plan/methods")}


def _module(method: str) -> ModuleType:
    return import_module(f"pipeline.plan.methods.{method}")


def _about(module: ModuleType) -> str:
    return (module.__doc__ or "").strip().splitlines()[0]
