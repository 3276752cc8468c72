"""IMP-RePrune by the plain mean: a pruned weight counts as zero (CIA; Yin et al., 2022)."""

from pipeline.plan.methods.imp_reprune import independent_runs
from pipeline.plan.planner import Planner

LABEL = "IMP-RePrune (CIA)"
LOOK = ("orange", "P", "-.", 1.3)


def plan(work: Planner) -> None:
    """Report the stage of IMP-RePrune, whose mean is connectivity-independent (CIA)."""
    work.set_method("imp_reprune", lineage="imp")
    runs = independent_runs(work)
    phase = work.settings.phases
    average = work.reprune(runs, phase)
    work.set_method("imp_cia", lineage="imp_reprune")
    work.report(phase, average, candidates=runs)
