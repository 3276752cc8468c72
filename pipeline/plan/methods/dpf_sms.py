"""DPF whose intervals between late pruning steps train m copies, averaged (section 3.3)."""

from pipeline.plan import during
from pipeline.plan.work import Work

LABEL = "DPF + SMS"
BASELINES = ("dpf",)


def plan(work: Work) -> None:
    """Average the copies' dense weights at each pruning step, and mask the average anew."""
    work.start("dpf_sms")
    during.sms(work, "dpf")
