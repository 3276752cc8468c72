"""IMP-RePrune of runs whose channels are matched first (Git Re-Basin; Ainsworth et al., 2023)."""

from pipeline.plan.measurements import align
from pipeline.plan.methods.imp_reprune import independent_runs
from pipeline.plan.planner import Planner

LABEL = "IMP-RePrune (aligned)"
LOOK = ("black", "P", "-.", 1.3)


def plan(work: Planner) -> None:
    """Match the channels of IMP-RePrune's runs, so that their average is sparser."""
    work.set_method("imp_align", lineage="imp")
    runs = independent_runs(work)
    phase = work.settings.phases
    others = enumerate(runs[1:], start=1)
    aligned = [runs[0], *(align(work, runs[0], run, phase, number) for number, run in others)]
    work.report(phase, work.reprune(aligned, phase, unaligned=runs), candidates=aligned)
