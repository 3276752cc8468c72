"""Global sparse momentum: only the most salient weights learn from the loss (Ding et al., 2019)."""

from pipeline.plan import during
from pipeline.plan.work import Work

LABEL = "GSM"


def plan(work: Work) -> None:
    """Train one network, and prune it in the end."""
    work.start("gsm")
    model = during.sparsify(work, "gsm", from_dense=work.settings.during.from_dense)
    work.report(work.phases[-1], model)
