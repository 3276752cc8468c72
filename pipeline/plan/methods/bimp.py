"""BIMP: IMP within one training budget, dense at first, then ALLR phases (Zimmer et al., 2023)."""

from pipeline.plan.planner import Planner
from pipeline.plan.sparsify import bimp

LABEL = "BIMP"
LOOK = ("sky", "p", "--", 1.2)
PAPER = {"pruning_during_training": "BIMP"}


def plan(work: Planner) -> None:
    """Run IMP on a dense network that is trained for only a share of the epochs."""
    short = bimp(work)
    short.set_method("bimp")
    model = short.pretrain()
    for phase in short.phases:
        pruned = short.prune(model, phase)
        model = short.retrain(pruned, phase)
        short.report(phase, model)
