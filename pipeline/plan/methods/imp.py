"""Iterative magnitude pruning: prune, retrain one copy, repeat (Han et al., 2015)."""

from pipeline.plan.planner import Planner

LABEL = "IMP"
LOOK = ("green", "^", "--")
PAPER = {
    "prune_after_training": "IMP",
    "more_phases": "IMP with m phases",
    "subgroup_recall": "IMP",
    "swa": "IMP",
}


def plan(work: Planner) -> None:
    """Start every phase from the one network that the phase before retrained."""
    work.set_method("imp")
    model = work.pretrain()
    for phase in work.phases:
        pruned = work.prune(model, phase, run=0)
        model = work.retrain(pruned, phase)
        work.report(phase, model)
