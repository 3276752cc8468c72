"""BIMP with a soup of m copies in every phase (section 3.3)."""

from pipeline.plan.planner import Planner
from pipeline.plan.sparsify import bimp

LABEL = "BIMP + SMS"
LOOK = ("black", "p", "-", 1.2)
PAPER = {"pruning_during_training": "BIMP+SMS"}
PAPER_SETTINGS = {"m": (2, 3)}
BASELINES = ("bimp",)


def plan(work: Planner) -> None:
    """Run SMS on BIMP's dense network; each copy trains as long as BIMP's without a budget."""
    short = bimp(work, copies=work.m)
    short.set_method("bimp_sms")
    soup = short.pretrain()
    for phase in short.phases:
        pruned = short.prune(soup, phase)
        copies = [short.retrain(pruned, phase, candidate=j) for j in range(short.m)]
        soup = short.merge(copies, phase, "uniform")
        short.report(phase, soup, copies)
