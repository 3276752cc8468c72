"""IMP with every retraining m times as long: the same epochs as SMS, in one copy (section 3.1)."""

from pipeline.plan.planner import Planner

LABEL = "IMP {m}\N{MULTIPLICATION SIGN} longer"
LOOK = ("vermilion", "v", "--")
PAPER = {"prune_after_training": "IMP_mx", "more_phases": "IMP_mx"}


def plan(work: Planner) -> None:
    """Retrain one network for as many epochs as the m candidates of SMS together."""
    work.set_method("imp_mx")
    model = work.pretrain()
    for phase in work.phases:
        pruned = work.prune(model, phase)
        model = work.retrain(pruned, phase, times=work.m)
        work.report(phase, model)
