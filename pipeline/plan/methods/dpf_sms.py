"""DPF whose intervals between late pruning steps train m copies, averaged (section 3.3)."""

from pipeline.plan import sparsify
from pipeline.plan.planner import Planner

LABEL = "DPF + SMS"
LOOK = ("black", ">", "-")
PAPER = {"pruning_during_training": "DPF+SMS"}
PAPER_SETTINGS = {"m": (2, 3), "sparsify.mask_interval": (0,)}
BASELINES = ("dpf",)


def plan(work: Planner) -> None:
    """Average the copies' dense weights at each pruning step, and choose the average's mask."""
    work.set_method("dpf_sms")
    sparsify.sms(work, "dpf")
