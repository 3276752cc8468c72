"""Discovering neural wirings: the largest act, all learn (Wortsman et al., 2019)."""

from pipeline.plan import during
from pipeline.plan.work import Work

LABEL = "DNW"


def plan(work: Work) -> None:
    """Train one network that is sparse from the first iteration on."""
    work.start("dnw")
    model = during.sparsify(work, "dnw")
    work.report(work.phases[-1], model)
