"""GMP whose intervals between late pruning steps train m copies, averaged (section 3.3)."""

from pipeline.plan import during
from pipeline.plan.work import Work

LABEL = "GMP + SMS"
BASELINES = ("gmp",)


def plan(work: Work) -> None:
    """Average the copies at each pruning step, and go on from the pruned average."""
    work.start("gmp_sms")
    during.sms(work, "gmp")
