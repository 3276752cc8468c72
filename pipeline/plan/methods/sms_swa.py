"""SMS of SWA means, taken at a constant learning rate (appendix C.3; Izmailov et al., 2018)."""

from pipeline.plan.planner import Planner
from pipeline.plan.retraining import constant_rate_swa_flags

LABEL = "SMS of SWA means"
LOOK = ("black", "s", "-")
BASELINES = ("imp_mx", "imp", "imp_reprune")


def plan(work: Planner) -> None:
    """Plan SMS with ``retrain.average: swa`` over the last half, at a constant learning rate."""
    work.set_method("sms_swa")
    average = constant_rate_swa_flags(work)
    soup = work.pretrain()
    for phase in work.phases:
        pruned = work.prune(soup, phase)
        candidates = [work.retrain(pruned, phase, candidate=j, **average) for j in range(work.m)]
        soup = work.merge(candidates, phase, "uniform")
        work.report(phase, soup, candidates)
