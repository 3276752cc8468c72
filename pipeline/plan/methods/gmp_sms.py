"""GMP whose intervals between late pruning steps train m copies, averaged (section 3.3)."""

from pipeline.plan import sparsify
from pipeline.plan.planner import Planner

LABEL = "GMP + SMS"
LOOK = ("vermilion", "d", "-", 1.1)
PAPER = {"pruning_during_training": "GMP+SMS"}
PAPER_SETTINGS = {"m": (2, 3)}
BASELINES = ("gmp",)


def plan(work: Planner) -> None:
    """Average the copies at each pruning step, and go on from the pruned average."""
    work.set_method("gmp_sms")
    sparsify.sms(work, "gmp")
