"""Dynamic sparse training: channels learn thresholds, sparsity as it comes (Liu et al., 2020)."""

from pipeline.plan import during
from pipeline.plan.work import Work

LABEL = "DST"


def plan(work: Work) -> None:
    """Train one network, whose sparsity is reported and not asked for."""
    work.start("dst")
    model = during.sparsify(work, "dst")
    work.report(work.phases[-1], model)
