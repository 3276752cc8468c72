"""IMP-RePrune with each weight averaged over the runs that keep it (CAA; Yin et al., 2022)."""

from pipeline.plan.methods.imp_reprune import independent_runs
from pipeline.plan.planner import Planner

LABEL = "IMP-RePrune (CAA)"
LOOK = ("sky", "P", "-.", 1.3)


def plan(work: Planner) -> None:
    """Average the runs of IMP-RePrune, each weight over the runs that keep it."""
    work.set_method("imp_caa", lineage="imp")
    runs = independent_runs(work)
    phase = work.settings.phases
    work.report(phase, work.reprune(runs, phase, average="caa"), candidates=runs)
