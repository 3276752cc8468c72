"""IMP+SWA: IMP where each retraining ends at the mean over its epochs (appendix C.3, Table 17)."""

from pipeline.plan.planner import Planner
from pipeline.plan.retraining import swa_flags

LABEL = "IMP+SWA"
LOOK = ("blue", "X", "-.", 1.2)
PAPER = {"swa": "IMP+SWA"}


def plan(work: Planner) -> None:
    """Plan IMP with ``retrain.average: swa`` at the schedule's own learning rates."""
    work.set_method("imp_swa")
    average = swa_flags(work, learning_rate=None)
    model = work.pretrain()
    for phase in work.phases:
        pruned = work.prune(model, phase)
        model = work.retrain(pruned, phase, **average)
        work.report(phase, model)
