"""IMP+SWA: IMP where each retraining ends at the mean over its epochs (appendix C.3, Table 17)."""

from pipeline.plan.planner import Planner

LABEL = "IMP+SWA"
LOOK = ("blue", "X", "-.", 1.2)
PAPER = {"swa": "IMP+SWA"}


def plan(work: Planner) -> None:
    """Start every phase from the mean over the epochs of the phase before."""
    work.set_method("imp_swa")
    model = work.pretrain()
    for phase in work.phases:
        pruned = work.prune(model, phase)
        model = work.retrain(pruned, phase, swa_start=work.settings.swa.start or 0.0)
        work.report(phase, model)
